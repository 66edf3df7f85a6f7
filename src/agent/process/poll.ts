import type { Timers } from '#engine/engine.ts';

export interface PollTiming {
  readonly everyMs: number;
  /** Sum of all pauses. Default: no limit. */
  readonly forMs?: number;
}

/**
 * Repeats `look` until it finds something, and returns that; returns undefined once the pauses add up to the limit.
 * Pauses are counted because the guest's clock also runs while its machine is stopped or gets no processor, and nothing
 * can happen then.
 */
export async function poll<T>(
  timers: Pick<Timers, 'setTimer'>,
  look: () => T | undefined | Promise<T | undefined>,
  { everyMs, forMs = Infinity }: PollTiming,
): Promise<T | undefined> {
  for (let leftMs = forMs; ; leftMs -= everyMs) {
    const found = await look();
    if (found !== undefined || leftMs <= 0) return found;
    await new Promise<void>((resolve) => void timers.setTimer(everyMs, resolve));
  }
}
