import { kindOf, messageOf } from '#base/errors.ts';
import type { HeldImage } from '#image/images.ts';
import { isSnapshot } from '#image/snapshot/snapshot-images.ts';
import type { Parts } from '../parts.ts';
import { exercise } from './exercise.ts';
import { machineSteps, type MachineMade, type MachineSite } from './machine-steps.ts';
import { stepOf, type Steps } from './run-steps.ts';

interface SpareMade extends MachineMade {
  readonly exercised: void;
  readonly imagesPluggedAhead: void;
  readonly connectedAhead: void;
}

const step = stepOf<SpareMade, MachineSite>();

/** The steps to a machine that waits in the pool. */
export const spareSteps: Steps<SpareMade, MachineSite> = {
  ...machineSteps,
  exercised: step({
    name: 'machine exercised',
    what: 'the machine is used once as a pod would (`src/sandbox/start/exercise.ts`)',
    needs: ['directory', 'attachment', 'machine', 'guest', 'scratchReady'],
    run: (made, { context }, signal) => exercise(made, context, signal),
  }),
  imagesPluggedAhead: step({
    name: 'images plugged ahead',
    what: 'the images that the last pods began with are mounted (`src/sandbox/start/image-demand.ts`)',
    needs: ['imageDisks', 'exercised'],
    run: plugFavourites,
  }),
  connectedAhead: step({
    name: 'network connected ahead',
    what: 'the network is connected as far as that does not depend on the pod',
    needs: ['attachment'],
    run: ({ attachment }, _site, signal) => attachment.connectAhead(signal),
  }),
};

/**
 * An image that is not on the node is only logged: the machine is of use without one. Errors: those of `attachAhead`, since
 * a machine that has half of an image is for no other pod; the next machine is made without that image.
 */
async function plugFavourites(
  { imageDisks }: Pick<SpareMade, 'imageDisks'>,
  { context: { imageDemand, parts, surroundings }, phases }: MachineSite,
  signal: AbortSignal,
): Promise<void> {
  for (const id of imageDemand.favourites) {
    let image: HeldImage | undefined;
    try {
      image = isSnapshot(id) ? await parts.snapshots.holdMade(id) : await parts.images.hold(id, 'Never', signal);
    } catch (error) {
      if (signal.aborted) throw error;
      surroundings.log.debug('image not plugged ahead', { image: id, why: messageOf(error) });
    }
    if (image === undefined) continue;
    await using held = image;
    try {
      await imageDisks.attachAhead(held, phases, signal);
    } catch (error) {
      const isCancelled = signal.aborted && kindOf(signal.reason) === 'cancelled';
      if (!isCancelled) imageDemand.failed(id); // it may also hang, or take the guest with it
      throw error;
    }
  }
}

/** Whether an image that a machine was given ahead is still on the node. */
export async function isImageThere(id: string, { images, snapshots }: Pick<Parts, 'images' | 'snapshots'>) {
  if (!isSnapshot(id)) return images.get(id) !== undefined;
  await using held = await snapshots.holdMade(id);
  return held !== undefined;
}
