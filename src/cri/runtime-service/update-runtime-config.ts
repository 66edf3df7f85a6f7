import type { Answer } from '../rpc/service.ts';
import type { UpdateRuntimeConfigResponseSchema } from '../schema/api_pb.ts';

/** A kubelet tells the node's pod addresses here. The network is CNI's own, as with containerd without a template. */
export async function updateRuntimeConfig(): Promise<Answer<typeof UpdateRuntimeConfigResponseSchema>> {
  return {};
}
