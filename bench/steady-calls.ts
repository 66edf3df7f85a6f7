import { setTimeout as delay } from 'node:timers/promises';
import type { RuntimeService } from '#cri/schema/api_pb.ts';
import type { ClientOf } from '#cri/testing/grpc-client.ts';

type Runtime = ClientOf<typeof RuntimeService>;

/** A pod with one container, by the ids of CRI. */
export interface CalledPod {
  readonly podSandboxId: string;
  readonly containerId: string;
}

const callTimeoutMs = 60_000;
const options = () => ({ deadline: Date.now() + callTimeoutMs });

const verbs = {
  listPodSandbox: (runtime: Runtime) => runtime.listPodSandbox({}, options()),
  listContainers: (runtime: Runtime) => runtime.listContainers({}, options()),
  podSandboxStatus: (runtime: Runtime, { podSandboxId }: CalledPod) =>
    runtime.podSandboxStatus({ podSandboxId }, options()),
  containerStatus: (runtime: Runtime, { containerId }: CalledPod) =>
    runtime.containerStatus({ containerId }, options()),
} as const satisfies Record<string, (runtime: Runtime, pod: CalledPod) => Promise<unknown>>;
type Verb = keyof typeof verbs;
const names = Object.keys(verbs) as readonly Verb[]; // SAFE: an object of that type has these keys

/** Interval at which due calls are made, in `ms`: calls come one by one, as from many clients. */
const tickMs = 1;
/** Maximum of concurrent calls: a client of a slow node waits too, and the rate decreases. */
const maxPending = 64;

/**
 * Asks for lists and statuses in turn, `callsPerSecond` of them, and tells `answered` how long each took, in `ms`, until its
 * answer was decoded. Returns the number of calls a second that were answered. Errors: those of failed calls.
 */
export async function callSteadily(
  runtime: Runtime,
  pods: readonly CalledPod[],
  { callsPerSecond, seconds }: { readonly callsPerSecond: number; readonly seconds: number },
  answered: (verb: Verb, ms: number) => void,
): Promise<number> {
  const count = callsPerSecond * seconds;
  const call = async (at: number): Promise<void> => {
    const [verb, pod] = [names[at % names.length], pods[at % pods.length]];
    if (verb === undefined || pod === undefined) throw new Error('there are no pods to call');
    const startedMs = performance.now();
    await verbs[verb](runtime, pod);
    answered(verb, performance.now() - startedMs);
  };
  const beganMs = performance.now();
  const pending = new Set<Promise<void>>();
  const failures: unknown[] = [];
  for (let at = 0; at < count && failures.length === 0;) {
    const due = Math.min(count, Math.ceil(((performance.now() - beganMs) / 1000) * callsPerSecond));
    for (; at < due && pending.size < maxPending; at += 1) {
      const made: Promise<void> = call(at)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => pending.delete(made));
      pending.add(made);
    }
    await delay(tickMs);
  }
  await Promise.all(pending);
  if (failures.length > 0) throw new AggregateError(failures, 'calls failed');
  return (count * 1000) / (performance.now() - beganMs);
}
