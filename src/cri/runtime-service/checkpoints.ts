import { PodvmError } from '#base/errors.ts';

/** Refuses checkpoints of pods and containers. */
export async function refuseCheckpoint(): Promise<never> {
  throw new PodvmError('unsupported', 'Cannot checkpoint or restore: PodVM does not support checkpoints yet');
}
