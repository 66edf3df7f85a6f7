import { PodvmError } from '#base/errors.ts';

/** Of pods and containers alike. */
export async function refuseCheckpoint(): Promise<never> {
  throw new PodvmError('unsupported', 'Cannot checkpoint or restore: PodVM does not do that yet');
}
