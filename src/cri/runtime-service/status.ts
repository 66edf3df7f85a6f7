import { handlers } from '../handlers.ts';
import type { CriParts, NetworkReadiness } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StatusRequest, StatusResponseSchema } from '../schema/api_pb.ts';

/** Always true: a process that serves this call was able to start. */
const runtimeReady = { type: 'RuntimeReady', status: true };

/** Features of every handler and of this version of PodVM. Omitted ones are not supported. */
const handlerFeatures = { recursiveReadOnlyMounts: true, userNamespaces: true };
const features = { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false };

export async function status(parts: CriParts, request: StatusRequest): Promise<Answer<typeof StatusResponseSchema>> {
  const network = await parts.networkReadiness();
  return {
    status: { conditions: [runtimeReady, networkCondition(network)] },
    runtimeHandlers: Object.keys(handlers).map((name) => ({ name, features: handlerFeatures })),
    features,
    info: request.verbose ? { config: JSON.stringify(parts.node.facts) } : {},
  };
}

/**
 * Returns the network condition. While it is false, a kubelet starts only pods of the host's network, and shows the
 * message.
 */
function networkCondition(network: NetworkReadiness) {
  const type = 'NetworkReady';
  if (network.isReady) return { type, status: true };
  const { message, fix } = network;
  return {
    type,
    status: false,
    reason: 'NetworkPluginNotReady',
    message: fix === undefined ? message : `${message}. ${fix}`,
  };
}
