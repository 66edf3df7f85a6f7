import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Log } from '#host/log/log.ts';
import type { KnownPod, KnownPods } from './known-pods.ts';
import { untilAborted } from '#host/until-aborted.ts';

type Start = (signal: AbortSignal) => Promise<KnownPod>;

interface UnderWay {
  readonly result: Promise<KnownPod>;
  readonly abort: AbortController;
  waiting: number;
  /** True when a caller ran out of time: it will retry, or find the pod in a list. */
  isExpected: boolean;
}

/**
 * Starts pods, at most one for each name. A kubelet that retries after a timeout waits for the start in progress, or
 * gets the pod that it has made. A start is undone when all its callers have cancelled.
 */
export class PodStarts {
  readonly #pods: KnownPods;
  readonly #log: Log;
  readonly #underWay = new Map<string, UnderWay>();

  constructor(pods: KnownPods, log: Log) {
    this.#pods = pods;
    this.#log = log;
  }

  /**
   * Runs a start. Errors: `alreadyExists` when a pod of that name has ended and is not removed yet; those of `start`.
   */
  async run(key: string, start: Start, signal: AbortSignal): Promise<KnownPod> {
    for (;;) {
      const existing = [...this.#pods.pods].find((pod) => podKeyOf(pod) === key);
      if (existing !== undefined) return usable(existing);
      const shared = this.#underWay.get(key) ?? this.#begin(key, start);
      if (!shared.abort.signal.aborted) return await this.#wait(shared, signal);
      await untilAborted(shared.result, signal).catch(() => signal.throwIfAborted()); // the undo is in progress
    }
  }

  #begin(key: string, start: Start): UnderWay {
    const abort = new AbortController();
    const result = start(abort.signal).finally(() => this.#underWay.delete(key));
    const shared = { result, abort, waiting: 0, isExpected: false };
    this.#underWay.set(key, shared);
    return shared;
  }

  async #wait(shared: UnderWay, signal: AbortSignal): Promise<KnownPod> {
    shared.waiting += 1;
    try {
      return await untilAborted(shared.result, signal);
    } finally {
      shared.waiting -= 1;
      if (signal.aborted) this.#left(shared, kindOf(signal.reason) === 'timeout');
    }
  }

  #left(shared: UnderWay, ranOutOfTime: boolean): void {
    if (ranOutOfTime && !shared.isExpected) {
      shared.isExpected = true;
      shared.result.catch((error: unknown) =>
        this.#log.warn('a start failed after its callers had left', { err: messageOf(error) }),
      );
    }
    if (shared.waiting === 0 && !shared.isExpected) shared.abort.abort(new PodvmError('cancelled', 'the caller left'));
  }
}

/** Returns the key of a pod, equal for two requests for the same pod. */
export function podKeyOf({ config }: Pick<KnownPod, 'config'>): string {
  const { namespace, name, uid, attempt } = config.metadata ?? {};
  return JSON.stringify([namespace, name, uid, attempt]);
}

function usable(pod: KnownPod): KnownPod {
  const { state } = pod.sandbox.status;
  if (state === 'ready') return pod;
  const name = printable(pod.config.metadata?.name ?? '');
  throw new PodvmError(
    'alreadyExists',
    `Cannot run pod sandbox ${name}: the name is in use by ${pod.sandbox.id}, which is ${state}`,
    {
      fix: 'Remove that pod sandbox first, or increase the attempt.',
    },
  );
}
