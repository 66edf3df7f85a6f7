import { link } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, PodvmError } from '#base/errors.ts';
import type { HeldImage } from '#image/images.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { PhaseClock } from '../phases.ts';

/** The images of one machine: each is attached once, and shared by the containers that run it. */
export interface ImageDisks extends AsyncDisposable {
  /**
   * Attaches the image if needed, and returns the disk's serial. Takes ownership of the image: it is held until the machine is
   * gone, or released at once when it is attached already. Errors: those of machine and agent.
   */
  attach(image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string>;
  /** Images that are attached. */
  readonly plugged: readonly PluggedImage[];
  /** Sets the listener, which is called for each attached image; the call that attaches it waits for the listener. */
  onPlugged(listener: (plugged: readonly PluggedImage[]) => Promise<void>): void;
}

/** An image of a machine as recorded for the next process; plain JSON. */
export interface PluggedImage {
  readonly id: string;
  readonly serial: string;
}

/** What an earlier process attached. */
export interface ImagesBefore {
  readonly images: readonly PluggedImage[];
  /** Serials of all disks in the guest. */
  readonly serials: readonly string[];
  /** The held images. One that cannot be held is left out: the machine has its own link to the file. */
  readonly held: AsyncDisposable;
}

export function createImageDisks(
  machine: Pick<Machine, 'attachDisk'>,
  guest: Pick<Link, 'call'>,
  machineDirectory: string,
  before?: ImagesBefore,
): ImageDisks {
  const attached = new Map(before?.images.map(({ id, serial }) => [id, Promise.resolve(serial)]));
  const held = new AsyncDisposableStack();
  if (before !== undefined) held.use(before.held);
  const plugged = [...(before?.images ?? [])];
  let next = firstFree(before?.serials ?? []);
  let onPlugged: Parameters<ImageDisks['onPlugged']>[0] = () => Promise.resolve();

  const plug = async (image: HeldImage, phases: PhaseClock, signal: AbortSignal): Promise<string> => {
    const serial = `image-${next}`;
    next += 1;
    const file = `${serial}.erofs`;
    try {
      await link(image.rootfsPath, join(machineDirectory, file));
    } catch (cause) {
      throw new PodvmError('internal', `Cannot link image ${image.id} into the machine's directory`, {
        cause,
        fix: 'Keep images and sandboxes on one file system.',
      });
    }
    await phases.time('image plugged', machine.attachDisk({ serial, file, readOnly: true }, signal));
    const mounting = guest.call('attachDisk', { serial, fileSystem: 'erofs', readOnly: true }, signal);
    try {
      phases.add('image', (await phases.time('image mounted', mounting)).phases);
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
      const mine = plug(image, phases, signal);
      attached.set(image.id, mine);
      mine.catch(() => attached.delete(image.id));
      return await mine;
    },
    plugged,
    onPlugged: (listener) => void (onPlugged = listener),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

const firstFree = (serials: readonly string[]) =>
  Math.max(-1, ...serials.flatMap((serial) => Number(/^image-(\d+)$/.exec(serial)?.[1] ?? -1))) + 1;

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
