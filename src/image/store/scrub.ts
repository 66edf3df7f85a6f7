import { type Clock, pause } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Image, ImageStore } from '../images.ts';

const minuteMs = 60_000;
/** Delay of the first look, in `ms`: processes that end sooner read nothing. */
const firstAfterMs = 10 * minuteMs;
const lookEveryMs = 60 * minuteMs;
const readEveryMs = 7 * 24 * 60 * minuteMs;

export interface ScrubParts {
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Reads each image's file once a week, one after another and at idle priority, because nothing else detects bits that a
 * disk flips. Runs until disposed.
 */
export function startScrub(images: Pick<ImageStore, 'list' | 'check'>, parts: ScrubParts): AsyncDisposable {
  const stop = new AbortController();
  const going = scrub(images, parts, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await going;
    },
  };
}

async function scrub(
  images: Pick<ImageStore, 'list' | 'check'>,
  { clock, log }: ScrubParts,
  signal: AbortSignal,
): Promise<void> {
  for (let waitMs = firstAfterMs; ; waitMs = lookEveryMs) {
    await pause(clock, waitMs, signal);
    for (const { id } of images.list().filter((image) => isDue(image, clock.now()))) {
      if (signal.aborted) return;
      await images.check(id, signal).catch((error: unknown) => {
        if (!signal.aborted) log.error('image not checked', error, { image: id }); // it may have been removed
      });
    }
    if (signal.aborted) return;
  }
}

function isDue({ damaged, rootfs }: Image, nowMs: number): boolean {
  if (damaged !== undefined) return false;
  const readAtMs = rootfs === undefined ? Number.NaN : Date.parse(rootfs.checkedAt);
  return !(Math.abs(nowMs - readAtMs) < readEveryMs);
}
