import { kindOf } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Activity } from '../activity.ts';
import { hadNoMachine } from '#pod/pods.ts';
import type { LivePod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';

interface ReplaceParts {
  readonly pods: NodePods;
  readonly activity: Activity;
  readonly clock: Clock;
  readonly log: Log;
}

type PodName = Pick<LivePod, 'namespace' | 'name'>;
const keyOf = ({ namespace, name }: PodName) => `${namespace}/${name}`;

/** Disposing ends this, and leaves the pods as they are. */
export interface Replacing extends Disposable {
  /** Cancels the starts that are due, and those of pods that run now. */
  cancel(): void;
  /** Cancels the start of a pod that has ended. */
  readonly cancelOf: (pod: PodName) => void;
}

/** Delays before a pod is started again, in `ms`. */
const firstDelayMs = 10_000;
const longestDelayMs = 300_000;
/** Time that a pod must run for its earlier failures to be forgotten, in `ms`. */
const calmMs = 600_000;

/**
 * Starts pods that were applied again when their machine has failed, unless they were removed meanwhile. Such a start that gets
 * no machine is tried again, too: the node may be short of memory. Pods that end for other reasons were ended by a user, or
 * would fail again.
 */
export function replaceFailed({ pods, activity, clock, log }: ReplaceParts): Replacing {
  const failures = new Map<string, number>();
  const waiting = new Map<string, () => void>();
  const watched = new Set<LivePod>();
  let isStartingAgain = false;
  const startAgain = (live: LivePod) => {
    const isNamed = (other: PodName) => keyOf(other) === keyOf(live);
    if (pods.live().some(isNamed) || !pods.ended().some(isNamed)) {
      failures.delete(keyOf(live)); // a user has decided otherwise
      return;
    }
    log.info('starting a pod again whose machine has failed', { pod: keyOf(live) });
    isStartingAgain = true;
    try {
      pods.start([live.source], live.options);
    } finally {
      isStartingAgain = false;
    }
  };
  const cancelWaiting = (key: string) => {
    waiting.get(key)?.();
    waiting.delete(key);
  };
  const failed = (live: LivePod, ranMs: number) => {
    const key = keyOf(live);
    cancelWaiting(key);
    const count = ranMs >= calmMs ? 0 : (failures.get(key) ?? 0);
    failures.set(key, count + 1);
    const active = activity.begin();
    const cancel = clock.after(Math.min(firstDelayMs * 2 ** count, longestDelayMs), () => {
      waiting.delete(key);
      active[Symbol.dispose]();
      try {
        startAgain(live);
      } catch (error) {
        log.error('pod not started again', error, { pod: key, kind: kindOf(error) });
      }
    });
    waiting.set(key, () => {
      cancel();
      active[Symbol.dispose]();
    });
  };
  const leave = pods.onBegin((live) => {
    const startedMs = clock.monotonicMs();
    const isAgain = isStartingAgain;
    watched.add(live);
    void live.over.then((outcome) => {
      if (!watched.delete(live)) return;
      if (!hadNoMachine(outcome)) cancelWaiting(keyOf(live)); // a user has started it before that was due
      if (live.options.isApplied !== true) return;
      if (outcome.reason !== 'SandboxFailed' && !(isAgain && hadNoMachine(outcome))) {
        failures.delete(keyOf(live));
        return;
      }
      if (live.hasLostSecrets) {
        log.warn('pod not started again: its Secrets ended with an earlier node', { pod: live.name });
        return;
      }
      failed(live, clock.monotonicMs() - startedMs);
    });
  });
  const cancelAll = () => {
    watched.clear();
    for (const end of waiting.values()) end();
    waiting.clear();
  };
  return {
    cancel: cancelAll,
    cancelOf: (pod) => {
      cancelWaiting(keyOf(pod));
      failures.delete(keyOf(pod));
    },
    [Symbol.dispose]: () => {
      leave();
      cancelAll();
    },
  };
}
