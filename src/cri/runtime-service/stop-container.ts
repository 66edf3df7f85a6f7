import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { numberOf } from '../translate/int64.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { StopContainerRequest, StopContainerResponseSchema } from '../schema/api_pb.ts';

/** Never aborts: a caller that leaves does not shorten the container's grace period. */
const never = new AbortController().signal;
const maxGraceSeconds = 10 * 365 * 24 * 3600;

/** Asks the container to end, and kills it after `timeout` seconds. An unknown or ended one is not an error. */
export async function stopContainer(
  { pods }: CriParts,
  { containerId, timeout }: StopContainerRequest,
  signal: AbortSignal,
): Promise<Answer<typeof StopContainerResponseSchema>> {
  if (containerId === '') throw new PodvmError('invalid', 'Cannot stop a container: the request has no id');
  const known = pods.findContainer(containerId);
  const seconds = timeout < 0n ? 0 : numberOf('a timeout', timeout, [0, maxGraceSeconds]);
  if (known !== undefined) await untilAborted(known.container.stop(seconds * 1000, never), signal);
  return {};
}
