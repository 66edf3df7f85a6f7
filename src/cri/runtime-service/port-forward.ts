import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { PortForwardRequest, PortForwardResponseSchema } from '../schema/api_pb.ts';

/**
 * Returns a URL whose connections reach ports of the pod, including those on 127.0.0.1. Errors: `notFound`,
 * `failedPrecondition`.
 */
export async function portForward(
  { pods, streaming }: CriParts,
  { podSandboxId, port: ports }: PortForwardRequest,
): Promise<Answer<typeof PortForwardResponseSchema>> {
  const { sandbox } = pods.pod(podSandboxId);
  if (sandbox.state !== 'ready') {
    throw new PodvmError('failedPrecondition', `Cannot forward ports of ${sandbox.id}: it is ${sandbox.state}`);
  }
  return { url: streaming.portForwardUrl({ target: sandbox, ports }) };
}
