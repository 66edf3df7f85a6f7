import { link, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, PodvmError } from '#base/errors.ts';
import type { HeldImage } from '#image/images.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { PhaseClock } from '../state/phases.ts';

/** The images of one machine: each is attached once, and shared by the containers that run it. */
export interface ImageDisks extends AsyncDisposable {
  /**
   * Attaches the image if needed, and returns the disk's serial. Takes ownership of the image: it is held until the machine is
   * gone, or released at once when it is attached already. Errors: those of machine and agent.
   */
  attach(image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string>;
  /**
   * Attaches an image before the machine has a pod. The first `attach` takes this disk if it needs the same file, and
   * otherwise detaches it first: no container starts in a machine that has an image of other pods. The image is not
   * held, since the machine has its own link to the file. Errors: those of machine and agent.
   */
  attachAhead(image: Pick<HeldImage, 'id' | 'rootfsPath'>, phases: PhaseClock, signal: AbortSignal): Promise<void>;
  /** Id of the image that was attached ahead, while no container has asked for an image. */
  readonly ahead: string | undefined;
  /** Images that are attached, except one that was only attached ahead. */
  readonly plugged: readonly PluggedImage[];
  /** Sets the listener, which is called for each attached image; the call that attaches it waits for the listener. */
  onPlugged(listener: (plugged: readonly PluggedImage[]) => Promise<void>): void;
}

/** An image of a machine as recorded for the next process; plain JSON. */
export interface PluggedImage {
  readonly id: string;
  readonly serial: string;
}

/** Images and disks that an earlier process attached. */
export interface ImagesBefore {
  readonly images: readonly PluggedImage[];
  /** Serials of all disks in the guest. */
  readonly serials: readonly string[];
  /** The held images. One that cannot be held is left out: the machine has its own link to the file. */
  readonly held: AsyncDisposable;
}

export interface ImageDisksSite {
  readonly machine: Pick<Machine, 'attachDisk' | 'detachDisk'>;
  readonly guest: Pick<Link, 'call'>;
  readonly machineDirectory: string;
  readonly before?: ImagesBefore;
  /** Called with the id of the image that the machine needs first. */
  readonly onFirst?: (id: string) => void;
}

/** A disk that was attached ahead; without an id, by an earlier process. */
interface Ahead {
  readonly serial: string;
  readonly id?: string;
}

export function createImageDisks({ machine, guest, machineDirectory, before, onFirst }: ImageDisksSite): ImageDisks {
  const attached = new Map(before?.images.map(({ id, serial }) => [id, Promise.resolve(serial)]));
  const held = new AsyncDisposableStack();
  if (before !== undefined) held.use(before.held);
  const plugged = [...(before?.images ?? [])];
  let next = firstFree(before?.serials ?? []);
  let ahead = aheadOf(before);
  let decision: Promise<string | undefined> | undefined;
  let onPlugged: Parameters<ImageDisks['onPlugged']>[0] = () => Promise.resolve();
  const pathOf = (serial: string) => join(machineDirectory, fileOf(serial));

  const plug = async (
    { id, rootfsPath }: Pick<HeldImage, 'id' | 'rootfsPath'>,
    phases: PhaseClock,
    signal: AbortSignal,
  ): Promise<string> => {
    const serial = `image-${next}`;
    next += 1;
    try {
      await link(rootfsPath, pathOf(serial));
    } catch (cause) {
      throw new PodvmError('internal', `Cannot link image ${id} into the machine's directory`, {
        cause,
        fix: 'Keep images and sandboxes on one file system.',
      });
    }
    await phases.time('image plugged', machine.attachDisk({ serial, file: fileOf(serial), readOnly: true }, signal));
    const mounting = guest.call('attachDisk', { serial, fileSystem: 'erofs', readOnly: true }, signal);
    phases.add('image', (await phases.time('image mounted', mounting)).phases);
    return serial;
  };
  /** The disk that was attached ahead, if it is the image; otherwise it is detached. */
  const decide = async (image: HeldImage, signal: AbortSignal): Promise<string | undefined> => {
    onFirst?.(image.id);
    if (ahead === undefined) return undefined;
    const { serial, id } = ahead;
    const isSame = id === image.id && (await isSameFile(pathOf(serial), image.rootfsPath));
    if (!isSame) {
      await guest.call('detachDisk', { serial }, signal);
      await machine.detachDisk(serial, signal);
      await rm(pathOf(serial), { force: true });
    }
    ahead = undefined;
    return isSame ? serial : undefined;
  };
  const provide = async (image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string> => {
    const isFirst = decision === undefined;
    decision ??= decide(image, signal);
    const kept = await decision.catch((error: unknown) => {
      decision = undefined;
      throw error;
    });
    let serial = isFirst ? kept : undefined;
    try {
      serial ??= await plug(image, phases, signal);
    } catch (error) {
      throw await whyNotMounted(image, error, signal);
    }
    plugged.push({ id: image.id, serial });
    await onPlugged(plugged);
    return serial;
  };
  return {
    async attach(image, phases, signal) {
      // A caller that comes while another attaches the same image waits, and tries again if that failed.
      for (let before = attached.get(image.id); before !== undefined; before = attached.get(image.id)) {
        const serial = await before.catch(() => undefined);
        if (serial === undefined) continue;
        await image[Symbol.asyncDispose]();
        return serial;
      }
      held.use(image);
      const mine = provide(image, phases, signal);
      attached.set(image.id, mine);
      mine.catch(() => attached.delete(image.id));
      return await mine;
    },
    async attachAhead(image, phases, signal) {
      ahead = { serial: await plug(image, phases, signal), id: image.id };
    },
    get ahead() {
      return ahead?.id;
    },
    plugged,
    onPlugged: (listener) => void (onPlugged = listener),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

const fileOf = (serial: string) => `${serial}.erofs`;

/** The n of `image-n`. */
function numberOf(serial: string): number | undefined {
  const digits = /^image-(\d+)$/.exec(serial)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Finds the disk of an image that no container has, in a machine that an earlier process made. */
function aheadOf(before: ImagesBefore | undefined): Ahead | undefined {
  const used = new Set(before?.images.map(({ serial }) => serial));
  const serial = before?.serials.find((each) => numberOf(each) !== undefined && !used.has(each));
  return serial === undefined ? undefined : { serial };
}

async function isSameFile(path: string, other: string): Promise<boolean> {
  const [one, two] = await Promise.all([stat(path, { bigint: true }), stat(other, { bigint: true })]);
  return one.ino === two.ino && one.dev === two.dev;
}

const firstFree = (serials: readonly string[]) => Math.max(-1, ...serials.map((serial) => numberOf(serial) ?? -1)) + 1;

/** A guest refuses to mount a damaged file system; only reading the whole file tells whether it is damaged. */
async function whyNotMounted(image: HeldImage, error: unknown, signal: AbortSignal): Promise<unknown> {
  if (kindOf(error) !== 'failedPrecondition') return error;
  const damage = await image.findDamage(signal);
  if (damage === undefined) return error;
  return new PodvmError('corrupt', `Cannot mount image ${image.id}: it is damaged: ${damage}`, {
    cause: error,
    fix: 'Start the container again: the image is fetched again, or the message says what to do.',
  });
}
