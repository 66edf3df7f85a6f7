import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Share of the processors' time, 0 to 1, that programs, or other virtual machines of the host, take in the next
 * `watchedMs`. A load average would be that of the minutes before.
 */
export async function measureBusy(watchedMs: number, signal: AbortSignal): Promise<number> {
  const before = await readFile('/proc/stat', 'latin1');
  await delay(watchedMs, undefined, { signal });
  return busyShare(before, await readFile('/proc/stat', 'latin1'));
}

/** Compares two readings of `/proc/stat` (proc_stat(5)). Waiting for a disk is not busy. */
export function busyShare(before: string, after: string): number {
  const [from, to] = [timesOf(before), timesOf(after)];
  const all = to.all - from.all;
  return all > 0 ? (to.busy - from.busy) / all : 0;
}

function timesOf(stat: string): { readonly all: number; readonly busy: number } {
  const line = /^cpu +(.*)$/m.exec(stat)?.[1] ?? '';
  const [user = 0, nice = 0, system = 0, idle = 0, waiting = 0, interrupts = 0, soft = 0, stolen = 0] = line
    .split(' ')
    .map(Number); // time of guests, which follows, is part of user and nice
  const busy = user + nice + system + interrupts + soft + stolen;
  return { busy, all: busy + idle + waiting };
}
