import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { ReopenContainerLogRequest, ReopenContainerLogResponseSchema } from '../schema/api_pb.ts';

/**
 * Reopens the log after a kubelet has renamed it. Errors: `notFound`; `failedPrecondition` unless the container runs.
 */
export async function reopenContainerLog(
  { pods }: CriParts,
  { containerId }: ReopenContainerLogRequest,
): Promise<Answer<typeof ReopenContainerLogResponseSchema>> {
  await pods.container(containerId).container.reopenLog();
  return {};
}
