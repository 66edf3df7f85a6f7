import type { Timer, Timers } from '#engine/engine.ts';

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

/** Length of one pause of a deadline. */
const pauseMs = 1000;

/**
 * Calls `act` when pauses of a second add up to the time, unless the returned function is called before. They are counted
 * for the same reason as in `poll`: work in a guest that gets no processor is late, but does not hang.
 */
export function afterPauses(timers: Timers, ms: number, act: () => void): () => void {
  let leftMs = ms;
  const pause = (): Timer =>
    timers.setTimer(pauseMs, () => {
      leftMs -= pauseMs;
      if (leftMs <= 0) act();
      else timer = pause();
    });
  let timer = pause();
  return () => timers.clearTimer(timer);
}
