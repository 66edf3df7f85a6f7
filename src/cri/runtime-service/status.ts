import { handlers } from '../handlers.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StatusRequest, StatusResponseSchema } from '../schema/api_pb.ts';

/** What this process cannot do now it could not do when it started: it would not be here. */
const conditions = ['RuntimeReady', 'NetworkReady'].map((type) => ({ type, status: true }));

/** What every handler can, and this version of PodVM as a whole: what is not said is not there. */
const handlerFeatures = { recursiveReadOnlyMounts: true, userNamespaces: true };
const features = { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false };

export async function status(parts: CriParts, request: StatusRequest): Promise<Answer<typeof StatusResponseSchema>> {
  return {
    status: { conditions },
    runtimeHandlers: Object.keys(handlers).map((name) => ({ name, features: handlerFeatures })),
    features,
    info: request.verbose ? { config: JSON.stringify(parts.node.facts) } : {},
  };
}
