import { flushCompileCache } from 'node:module';
import { availableParallelism, loadavg } from 'node:os';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Memory and work of a process, and of its host. */
export interface Measured {
  /** Memory of V8's heap, with garbage and what is kept for more, in bytes. */
  heapBytes(): number;
  /** Processor time of the thread since the last call, as a part of that time: from 0 to 1. */
  utilization(): number;
  /** Whether the host has work for all its processors: a collection, which stops this thread, takes seconds then. */
  isHostBusy(): boolean;
  /** Collects all garbage, and moves objects together. */
  collect(): void;
}

export interface RestTimes {
  /** Interval at which the process looks whether it rests, in `ms`. */
  readonly lookMs: number;
  /** Maximum utilization of a process that rests: 200 lists or statuses a second are more. */
  readonly maxUtilization: number;
  /** Minimum growth of the heap since the last collection, in bytes. */
  readonly minGrowthBytes: number;
}

const restTimes: RestTimes = { lookMs: 5_000, maxUtilization: 0.03, minGrowthBytes: 6 * 1024 * 1024 };

/**
 * Gives memory back when the process has nothing to do, until it is disposed. V8 collects garbage only when it needs room,
 * and keeps until then what a start, many pods or many calls have left; and Node keeps the compiled form of each file to
 * write it at its end.
 */
export function freeAtRest(measured: Measured = itself(), times: RestTimes = restTimes): Disposable {
  let heapBytes = 0;
  measured.utilization();
  const timer = setInterval(() => {
    const isAtRest = measured.utilization() <= times.maxUtilization && !measured.isHostBusy();
    if (!isAtRest || measured.heapBytes() - heapBytes < times.minGrowthBytes) return;
    flushCompileCache();
    measured.collect();
    heapBytes = measured.heapBytes();
  }, times.lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** This process. */
export function itself(): Measured {
  setFlagsFromString('--expose-gc');
  // SAFE: the flag defines it in each new context
  const collect = runInNewContext('gc') as (options: { readonly type: 'major'; readonly flavor: string }) => void;
  let [before, beforeMs] = [process.threadCpuUsage(), performance.now()];
  return {
    heapBytes: () => getHeapStatistics().total_heap_size,
    utilization: () => {
      const { user, system } = process.threadCpuUsage(before);
      const ms = performance.now() - beforeMs;
      [before, beforeMs] = [process.threadCpuUsage(), performance.now()];
      return (user + system) / 1000 / ms;
    },
    isHostBusy: () => (loadavg()[0] ?? 0) >= availableParallelism(),
    collect: () => collect({ type: 'major', flavor: 'last-resort' }),
  };
}
