import { create, toBinary } from '@bufbuild/protobuf';
import type { KnownContainer, KnownPod } from './known-pods.ts';
import type { CriParts } from './parts.ts';
import { EncodedAnswer, type Verbs } from './rpc/service.ts';
import { selectContainers } from './runtime-service/list-containers.ts';
import { selectPods } from './runtime-service/list-pod-sandbox.ts';
import { ListContainersResponseSchema, ListPodSandboxResponseSchema, type RuntimeService } from './schema/api_pb.ts';
import { containerOf, containerStateOf } from './translate/container-status.ts';
import { podOf, podStateOf } from './translate/pod-status.ts';

type Lists = Pick<Verbs<typeof RuntimeService, EncodedAnswer>, 'listPodSandbox' | 'listContainers'>;

/**
 * The two lists that a kubelet asks for each second, whose items rarely change: each item is encoded once for each of its
 * states. An answer is the bytes of its items one after another, since decoders append to a repeated field that comes again
 * (protobuf.dev, encoding).
 */
export function encodedLists(parts: CriParts): Lists {
  const podBytes = encodedOnce((pod: KnownPod) =>
    toBinary(ListPodSandboxResponseSchema, create(ListPodSandboxResponseSchema, { items: [podOf(pod)] })),
  );
  const containerBytes = encodedOnce((container: KnownContainer) =>
    toBinary(
      ListContainersResponseSchema,
      create(ListContainersResponseSchema, { containers: [containerOf(container)] }),
    ),
  );
  return {
    listPodSandbox: async ({ filter }) =>
      answerOf(selectPods(parts, filter), podStateOf, filter?.state?.state, podBytes),
    listContainers: async ({ filter }) =>
      answerOf(selectContainers(parts, filter ?? {}), containerStateOf, filter?.state?.state, containerBytes),
  };
}

/** Newest first, as containerd does. `only`: the wanted state; undefined: all. */
function answerOf<Known, State>(
  selected: readonly Known[],
  stateOf: (known: Known) => State,
  only: State | undefined,
  bytesOf: (known: Known, state: State) => Uint8Array,
): EncodedAnswer {
  const items = selected.flatMap((known) => {
    const state = stateOf(known);
    return only === undefined || state === only ? [bytesOf(known, state)] : [];
  });
  return new EncodedAnswer(Buffer.concat(items.toReversed()));
}

/** Keeps the bytes of each item until its state changes, or it is forgotten. */
function encodedOnce<Known extends object>(encode: (known: Known) => Uint8Array) {
  const kept = new WeakMap<Known, { readonly state: unknown; readonly bytes: Uint8Array }>();
  return (known: Known, state: unknown): Uint8Array => {
    const last = kept.get(known);
    if (last !== undefined && last.state === state) return last.bytes;
    const bytes = encode(known);
    kept.set(known, { state, bytes });
    return bytes;
  };
}
