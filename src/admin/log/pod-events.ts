import { PodvmError } from '#base/errors.ts';
import type { NodeEvent } from '#api/pods.ts';
import type { PodEvent } from '#pod/pods.ts';
import { eventOf } from '../pods/describe-pod.ts';
import { type NodePods } from '../pods/node-pods.ts';
import { type LivePod } from '../pods/known-pod.ts';

export interface EventQuery {
  readonly follow: boolean;
  /** Selects the pods. */
  readonly isWanted: (pod: { readonly namespace: string; readonly name: string }) => boolean;
}

/** Limit of events that wait for a slow client. */
const maxWaiting = 10_000;

/** Yields the past events of the pods of `podvm run`, the oldest first, and then new ones. Errors: `exhausted`. */
export async function* podEvents(
  pods: NodePods,
  { follow, isWanted }: EventQuery,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const waiting: NodeEvent[] = [];
  let wake = Promise.withResolvers<void>();
  using subscribed = new DisposableStack();
  const subscribe = ({ pod, namespace, name }: LivePod) => {
    const listen = (event: PodEvent) => {
      waiting.push({ namespace, name, ...eventOf(event) });
      wake.resolve();
    };
    if (isWanted(pod)) subscribed.defer(pod.onEvent(listen));
  };
  const known = pods.events().filter(isWanted);
  if (follow) {
    for (const live of pods.live()) subscribe(live);
    subscribed.defer(pods.onBegin(subscribe));
    signal.addEventListener('abort', () => wake.resolve(), { once: true });
  }
  for (const event of known) yield lineOf(event);
  if (!follow) return;
  while (!signal.aborted) {
    if (waiting.length > maxWaiting) {
      throw new PodvmError('exhausted', `Cannot follow events: more than ${maxWaiting} wait for their reader`, {
        fix: 'Follow them again, with a reader that keeps up: one that writes them to a file does.',
      });
    }
    const next = waiting.shift();
    if (next !== undefined) yield lineOf(next);
    else {
      await wake.promise;
      wake = Promise.withResolvers();
    }
  }
}

const lineOf = (event: NodeEvent): string => `${JSON.stringify(event)}\n`;
