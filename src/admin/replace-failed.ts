import { kindOf } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log.ts';
import type { Activity } from './activity.ts';
import { hadNoMachine } from '#pod/pods.ts';
import type { LivePod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';

interface ReplaceParts {
  readonly pods: NodePods;
  readonly activity: Activity;
  readonly clock: Clock;
  readonly log: Log;
}

/** Disposing ends this, and leaves the pods as they are. */
export interface Replacing extends Disposable {
  /** Cancels the starts that are due, and those of pods that run now. */
  cancel(): void;
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
  const waiting = new Set<() => void>();
  const watched = new Set<LivePod>();
  let isStartingAgain = false;
  const startAgain = (live: LivePod) => {
    const isNamed = ({ namespace, name }: { namespace: string; name: string }) =>
      namespace === live.namespace && name === live.name;
    if (pods.live().some(isNamed) || !pods.ended().some(isNamed)) {
      failures.delete(`${live.namespace}/${live.name}`); // a user has decided otherwise
      return;
    }
    log.info('starting a pod again whose machine has failed', { pod: `${live.namespace}/${live.name}` });
    isStartingAgain = true;
    try {
      pods.start([live.source], live.options);
    } finally {
      isStartingAgain = false;
    }
  };
  const failed = (live: LivePod, ranMs: number) => {
    const key = `${live.namespace}/${live.name}`;
    const count = ranMs >= calmMs ? 0 : (failures.get(key) ?? 0);
    failures.set(key, count + 1);
    const active = activity.begin();
    const cancel = clock.after(Math.min(firstDelayMs * 2 ** count, longestDelayMs), () => {
      waiting.delete(end);
      active[Symbol.dispose]();
      try {
        startAgain(live);
      } catch (error) {
        log.error('pod not started again', error, { pod: key, kind: kindOf(error) });
      }
    });
    const end = () => {
      cancel();
      active[Symbol.dispose]();
    };
    waiting.add(end);
  };
  const leave = pods.onBegin((live) => {
    const startedMs = clock.monotonicMs();
    const isAgain = isStartingAgain;
    watched.add(live);
    void live.over.then((outcome) => {
      if (!watched.delete(live) || live.options.isApplied !== true) return;
      if (outcome.reason !== 'SandboxFailed' && !(isAgain && hadNoMachine(outcome))) {
        failures.delete(`${live.namespace}/${live.name}`);
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
    for (const end of waiting) end();
    waiting.clear();
  };
  return {
    cancel: cancelAll,
    [Symbol.dispose]: () => {
      leave();
      cancelAll();
    },
  };
}
