import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Log } from '#host/log.ts';
import type { KnownPod, KnownPods } from './known-pods.ts';
import { untilAborted } from '#host/until-aborted.ts';

type Start = (signal: AbortSignal) => Promise<KnownPod>;

interface UnderWay {
  readonly result: Promise<KnownPod>;
  readonly abort: AbortController;
  waiting: number;
  /** A caller ran out of time: it will ask again, or find the pod in a list. */
  isExpected: boolean;
}

/**
 * Starts of pods, at most one for each name. A kubelet whose call timed out calls again: it then waits for the start
 * that is under way, or gets the pod that this start made meanwhile. A start that all its callers have cancelled is
 * undone.
 */
export class PodStarts {
  readonly #pods: KnownPods;
  readonly #log: Log;
  readonly #underWay = new Map<string, UnderWay>();

  constructor(pods: KnownPods, log: Log) {
    this.#pods = pods;
    this.#log = log;
  }

  /** Errors: `alreadyExists` when a pod of that name has ended and is not removed yet; those of `start`. */
  async run(key: string, start: Start, signal: AbortSignal): Promise<KnownPod> {
    for (;;) {
      const existing = [...this.#pods.pods].find((pod) => podKeyOf(pod) === key);
      if (existing !== undefined) return usable(existing);
      const shared = this.#underWay.get(key) ?? this.#begin(key, start);
      if (!shared.abort.signal.aborted) return await this.#wait(shared, signal);
      await untilAborted(shared.result, signal).catch(() => signal.throwIfAborted()); // it is being undone
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
        this.#log.warn('a start failed that nobody waited for any more', { err: messageOf(error) }),
      );
    }
    if (shared.waiting === 0 && !shared.isExpected) shared.abort.abort(new PodvmError('cancelled', 'The caller left'));
  }
}

/** What makes two requests ask for the same pod. */
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
    `Cannot run pod sandbox ${name}: ${pod.sandbox.id} has its name and is ${state}`,
    {
      fix: 'Remove that one first, or count the attempt up.',
    },
  );
}
