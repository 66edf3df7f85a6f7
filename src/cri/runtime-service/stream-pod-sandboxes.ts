import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamPodSandboxesRequest, StreamPodSandboxesResponseSchema } from '../schema/api_pb.ts';
import { matchingPods } from './list-pod-sandbox.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamPodSandboxes(
  parts: CriParts,
  { filter }: StreamPodSandboxesRequest,
): AsyncGenerator<Answer<typeof StreamPodSandboxesResponseSchema>> {
  for (const podSandboxes of inParts(matchingPods(parts, filter))) yield { podSandboxes };
}
