import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { VersionResponseSchema } from '../schema/api_pb.ts';

/** Kubelet's version of the protocol from before CRI had versions. Every runtime reports it. */
const protocolVersion = '0.1.0';

export async function version({ node }: CriParts): Promise<Answer<typeof VersionResponseSchema>> {
  return { version: protocolVersion, runtimeName: 'podvm', runtimeVersion: node.version, runtimeApiVersion: 'v1' };
}
