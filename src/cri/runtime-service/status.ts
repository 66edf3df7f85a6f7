import { handlers } from '../handlers.ts';
import type { CriParts, NetworkReadiness } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StatusRequest, StatusResponseSchema } from '../schema/api_pb.ts';

/** What this process cannot do now it could not do when it started: it would not be here. */
const runtimeReady = { type: 'RuntimeReady', status: true };

/** What every handler can, and this version of PodVM as a whole: what is not said is not there. */
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

/** A kubelet keeps pods away, all but those of the host's network, and shows the message, until it is true. */
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
