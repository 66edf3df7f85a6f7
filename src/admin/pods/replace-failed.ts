import { kindOf } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Activity } from '../activity.ts';
import { hadNoMachine } from '#pod/pods.ts';
import type { EndedPod } from '../record/ended-pods.ts';
import type { LivePod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';

interface ReplaceParts {
  readonly pods: NodePods;
  readonly activity: Activity;
  readonly clock: Clock;
  readonly log: Log;
  /** False in a process that ends with its command: it leaves starts that are due to the next node. */
  readonly takesDue: boolean;
}

type PodName = Pick<LivePod, 'namespace' | 'name'>;
const keyOf = ({ namespace, name }: PodName) => `${namespace}/${name}`;

/** Disposing ends this, leaves the pods as they are, and leaves starts that are due to the next process. */
export interface Replacing extends AsyncDisposable {
  /** Cancels the starts that are due, and those of pods that run now. */
  cancel(): void;
  /** Cancels the start of a pod that has ended, for the next process, too. */
  readonly cancelOf: (pod: PodName) => Promise<void>;
}

/** Delays before a pod is started again, in `ms`. */
const firstDelayMs = 10_000;
const longestDelayMs = 300_000;
/** Time that a pod must run for its earlier failures to be forgotten, in `ms`. */
const calmMs = 600_000;

/**
 * Starts pods that were applied again when their machine has failed, unless they were removed meanwhile. Such a start that gets
 * no machine is tried again, too: the node may be short of memory. Pods that end for other reasons were ended by a user, or
 * would fail again. Starts that were due when the process before ended are due again.
 */
export function replaceFailed({ pods, activity, clock, log, takesDue }: ReplaceParts): Replacing {
  const failures = new Map<string, number>();
  const waiting = new Map<string, { readonly pod: PodName; readonly cancel: () => void }>();
  const watched = new Set<LivePod>();
  const again = new Set<string>();
  let recorded: Promise<void> = Promise.resolve();
  const record = (pod: PodName, count: number | undefined): Promise<void> => {
    recorded = recorded
      .then(() => pods.setFailures(pod, count))
      .catch((error: unknown) => log.error('start that is due not recorded', error, { pod: keyOf(pod) }));
    return recorded;
  };
  const cancelWaiting = (key: string) => {
    waiting.get(key)?.cancel();
    waiting.delete(key);
  };
  const schedule = (pod: PodName, count: number, start: (ended: EndedPod) => Promise<unknown>) => {
    const key = keyOf(pod);
    cancelWaiting(key);
    failures.set(key, count);
    const active = activity.begin();
    const isNamed = (other: PodName) => keyOf(other) === key;
    const startAgain = async () => {
      const ended = pods.ended().find(isNamed);
      if (pods.live().some(isNamed) || ended === undefined) {
        failures.delete(key); // a user has decided otherwise
        return;
      }
      log.info('starting a pod again whose machine has failed', { pod: key });
      again.add(key);
      try {
        await start(ended);
      } catch (error) {
        log.error('pod not started again', error, { pod: key, kind: kindOf(error) });
        await record(pod, undefined);
      } finally {
        again.delete(key);
      }
    };
    const cancel = clock.after(Math.min(firstDelayMs * 2 ** (count - 1), longestDelayMs), () => {
      waiting.delete(key);
      void startAgain().finally(() => active[Symbol.dispose]());
    });
    waiting.set(key, {
      pod,
      cancel: () => {
        cancel();
        active[Symbol.dispose]();
      },
    });
  };
  for (const pod of takesDue ? pods.ended() : []) {
    if (pod.failures !== undefined) {
      schedule(pod, pod.failures, (ended) => pods.startAgain(ended, { isApplied: true }));
    }
  }
  const leave = pods.onBegin((live) => {
    const key = keyOf(live);
    const startedMs = clock.monotonicMs();
    const isAgain = again.has(key);
    watched.add(live);
    void live.over.then((outcome) => {
      if (!watched.delete(live)) return;
      if (!hadNoMachine(outcome)) cancelWaiting(key); // a user has started it before that was due
      if (live.options.isApplied !== true) return;
      if (outcome.reason !== 'SandboxFailed' && !(isAgain && hadNoMachine(outcome))) {
        failures.delete(key);
        return;
      }
      if (live.hasLostSecrets) {
        log.warn('pod not started again: its Secrets ended with an earlier node', { pod: live.name });
        return;
      }
      const isCalm = clock.monotonicMs() - startedMs >= calmMs;
      const count = (isCalm ? 0 : (failures.get(key) ?? 0)) + 1;
      void record(live, count);
      schedule(live, count, async () => pods.start([live.source], live.options));
    });
  });
  const cancelAll = () => {
    watched.clear();
    for (const { cancel } of waiting.values()) cancel();
  };
  return {
    cancel: () => {
      cancelAll();
      for (const { pod } of waiting.values()) void record(pod, undefined);
      waiting.clear();
    },
    cancelOf: async (pod) => {
      cancelWaiting(keyOf(pod));
      failures.delete(keyOf(pod));
      await record(pod, undefined);
    },
    async [Symbol.asyncDispose]() {
      leave();
      cancelAll();
      waiting.clear();
      await recorded;
    },
  };
}
