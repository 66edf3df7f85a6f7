import type { RunningPod } from '#pod/pods.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { type ForeignPod, newestContainers } from './foreign-pods.ts';
import { type KnownPod } from './known-pod.ts';

/** A running pod, of any owner, with the parts that commands and connections need. */
export interface ReachedPod {
  readonly name: string;
  /** Undefined until it has a machine. */
  readonly sandbox: Sandbox | undefined;
  readonly containers: readonly string[];
  /** Container for requests that name none. */
  readonly chosen: string | undefined;
}

/** Returns the parts of a running pod of any owner. */
export const reached = (pod: Exclude<KnownPod, { kind: 'ended' }>): ReachedPod =>
  pod.kind === 'live' ? reachedPod(pod.pod) : reachedForeign(pod);

function reachedPod({ name, sandbox, pod: { spec } }: RunningPod): ReachedPod {
  const containers = [...spec.initContainers, ...spec.containers].map((container) => container.name);
  return { name, sandbox, containers, chosen: spec.containers[0]?.name };
}

function reachedForeign({ name, sandbox }: ForeignPod): ReachedPod {
  const newest = newestContainers(sandbox).map(({ status }) => status);
  const chosen = newest.find(({ state }) => state === 'running') ?? newest.at(-1);
  return { name, sandbox, containers: newest.map((container) => container.name), chosen: chosen?.name };
}
