import type { Answer } from '../rpc/service.ts';
import type { UpdateRuntimeConfigResponseSchema } from '../schema/api_pb.ts';

/**
 * Accepts the node's pod addresses from a kubelet, and ignores them: CNI owns the network, as for containerd without a
 * template.
 */
export async function updateRuntimeConfig(): Promise<Answer<typeof UpdateRuntimeConfigResponseSchema>> {
  return {};
}
