import { link, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, PodvmError } from '#base/errors.ts';
import type { HeldImage } from '#image/images.ts';
import type { Link } from '#link/link.ts';
import type { DiskSpec, Machine } from '#vm/driver.ts';
import type { PhaseClock } from '../state/phases.ts';

/** The images of one machine: each is attached once, and shared by the containers that run it. */
export interface ImageDisks extends AsyncDisposable {
  /**
   * Attaches the image if needed, and returns the disk's serial. Takes ownership of the image: it is held until the machine is
   * gone, or released at once when it is attached already. Errors: those of machine and agent.
   */
  attach(image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string>;
  /**
   * Attaches an image before the machine has a pod, beside those that it has. The first `attach` takes its disk if it needs
   * the same file, and empties the others: no container is made in a machine that can read images of other pods. The image
   * is not held, since the machine has its own link to the file. Errors: those of machine and agent.
   */
  attachAhead(image: ImageOnDisk, phases: PhaseClock, signal: AbortSignal): Promise<void>;
  /** Ids of the images that were attached ahead, while no container has asked for an image. */
  readonly ahead: readonly string[];
  /** Images that are attached, except those that were only attached ahead. */
  readonly plugged: readonly PluggedImage[];
  /** Sets the listener, which is called for each attached image; the call that attaches it waits for the listener. */
  onPlugged(listener: (plugged: readonly PluggedImage[]) => Promise<void>): void;
}

export type ImageOnDisk = Pick<HeldImage, 'id' | 'rootfsPath' | 'layerPaths'>;

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
  readonly machine: Pick<Machine, 'attachDisk' | 'emptyDisk'>;
  readonly guest: Pick<Link, 'call'>;
  readonly machineDirectory: string;
  readonly before?: ImagesBefore;
  /** Called with the id of the image that the machine needs first, once it is attached. */
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
  /** Disks of other images that a pod's first image does not need; none is taken any more. */
  const leaving: Ahead[] = [];
  let emptying = Promise.resolve();
  let isFirst = true;
  let onPlugged: Parameters<ImageDisks['onPlugged']>[0] = () => Promise.resolve();

  const plug = async (image: ImageOnDisk, phases: PhaseClock, signal: AbortSignal): Promise<string> => {
    const serial = `image-${next}`;
    next += 1;
    const disk = await linkImage(image, machineDirectory, serial);
    await phases.time('image plugged', machine.attachDisk(disk, signal));
    const mounting = guest.call('attachDisk', { serial, fileSystem: 'erofs', readOnly: true }, signal);
    phases.add('image', (await phases.time('image mounted', mounting)).phases);
    return serial;
  };
  const plugOrSayWhy = (image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string> =>
    plug(image, phases, signal).catch(async (error: unknown) => {
      throw await whyNotMounted(image, error, signal);
    });
  /** Finds the image among those attached ahead. Disks that turn out to be of another file leave. */
  const takeAhead = (image: HeldImage): Promise<string | undefined> => {
    const candidates = ahead.filter((each) => each.id === undefined || each.id === image.id);
    ahead = ahead.filter((each) => !candidates.includes(each));
    const find = async () => {
      let found: string | undefined;
      for (const each of candidates) {
        if (found === undefined && (await isLinked(image, machineDirectory, each.serial))) found = each.serial;
        else leaving.push(each);
      }
      return found;
    };
    const taken = find();
    emptying = Promise.all([emptying, taken]).then(() => undefined);
    return taken;
  };
  const emptyOthers = async (signal: AbortSignal): Promise<void> => {
    for (let [other] = leaving; other !== undefined; [other] = leaving) {
      await unlinkImage(machineDirectory, other.serial); // first: the next process takes a disk whose file it finds
      await machine.emptyDisk(other.serial, signal);
      leaving.shift();
    }
  };
  /** Callers wait for each other: one that comes later tries again if an earlier one failed. */
  const withoutOthers = (phases: PhaseClock, signal: AbortSignal): Promise<void> => {
    leaving.push(...ahead);
    ahead = [];
    const mine = emptying.then(async () => {
      if (leaving.length > 0) await phases.time('other images removed', emptyOthers(signal));
    });
    emptying = mine.catch(() => undefined);
    return mine;
  };
  const provide = async (image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string> => {
    const asksFirst = isFirst;
    isFirst = false;
    const kept = await takeAhead(image);
    const alone = withoutOthers(phases, signal);
    alone.catch(() => undefined); // awaited below
    const serial = kept ?? (await plugOrSayWhy(image, phases, signal));
    try {
      await alone;
    } catch (error) {
      ahead = [...ahead, { serial, id: image.id }]; // for the next attempt
      throw error;
    }
    plugged.push({ id: image.id, serial });
    if (asksFirst) onFirst?.(image.id);
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
      ahead = [...ahead, { serial: await plug(image, phases, signal), id: image.id }];
    },
    get ahead() {
      return ahead.flatMap(({ id }) => id ?? []);
    },
    plugged,
    onPlugged: (listener) => void (onPlugged = listener),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Links the files of an image into a machine's directory, and returns the disk that they are. */
export async function linkImage(image: ImageOnDisk, machineDirectory: string, serial: string): Promise<DiskSpec> {
  const links = linksOf(image, serial);
  try {
    for (const { path, name } of links) await link(path, join(machineDirectory, name));
  } catch (cause) {
    throw new PodvmError('internal', `Cannot link image ${image.id} into the machine's directory`, {
      cause,
      fix: 'Keep images and sandboxes on one file system.',
    });
  }
  const [file = '', ...followedBy] = links.map(({ name }) => name);
  return { serial, file, followedBy, readOnly: true };
}

/** Removes the links to the files of an image. */
export async function unlinkImage(machineDirectory: string, serial: string): Promise<void> {
  for (const name of await readdir(machineDirectory)) {
    if (name.startsWith(`${serial}.`) && name.endsWith(suffix)) await rm(join(machineDirectory, name), { force: true });
  }
}

/** `image-0.erofs`, and `image-0.1.erofs` and so on for the files of its layers. */
function linksOf({ rootfsPath, layerPaths }: ImageOnDisk, serial: string) {
  return [rootfsPath, ...layerPaths].map((path, at) => ({
    path,
    name: `${serial}${at === 0 ? '' : `.${at}`}${suffix}`,
  }));
}

const suffix = '.erofs';

/** The n of `image-n`. */
function numberOf(serial: string): number | undefined {
  const digits = /^image-(\d+)$/.exec(serial)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Finds the disks of images that no container has, in a machine that an earlier process made. */
function aheadOf(before: ImagesBefore | undefined): readonly Ahead[] {
  const used = new Set(before?.images.map(({ serial }) => serial));
  const serials = before?.serials.filter((each) => numberOf(each) !== undefined && !used.has(each)) ?? [];
  return serials.map((serial) => ({ serial }));
}

/** Whether the machine's files are those of the image, which may have been fetched again. False also if one is gone. */
async function isLinked(image: ImageOnDisk, machineDirectory: string, serial: string): Promise<boolean> {
  const statOf = (path: string) => stat(path, { bigint: true }).catch(() => undefined);
  for (const { path, name } of linksOf(image, serial)) {
    const [one, two] = await Promise.all([path, join(machineDirectory, name)].map(statOf));
    if (one === undefined || one.ino !== two?.ino || one.dev !== two.dev) return false;
  }
  return true;
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
