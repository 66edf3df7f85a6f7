import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { ContainerEventResponseSchema, GetEventsRequest } from '../schema/api_pb.ts';

/** Streams events until the caller leaves. Errors: those of `Events.listen`. */
export async function* getContainerEvents(
  { events }: CriParts,
  _request: GetEventsRequest,
  signal: AbortSignal,
): AsyncGenerator<Answer<typeof ContainerEventResponseSchema>> {
  yield* events.listen(signal);
}
