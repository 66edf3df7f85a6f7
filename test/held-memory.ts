import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/**
 * Memory that this process holds, in bytes: objects and buffers, without garbage. Code and large objects do not count:
 * V8 loads the source of a module of 4 MB when it compiles one function of it, and drops it minutes later.
 */
export function heldMemory(): number {
  collect();
  const objects = getHeapSpaceStatistics().find((space) => space.space_name === 'old_space');
  assert.ok(objects, 'V8 has no old_space');
  return objects.space_used_size + process.memoryUsage().arrayBuffers;
}

/** Held memory after it has stopped falling, when used connections and streams have closed. */
async function heldAtRest(): Promise<number> {
  for (let held = heldMemory(); ;) {
    await sleep(20);
    const now = heldMemory();
    if (now > held - 10_000) return now;
    held = now;
  }
}

/** Returns the minimum held memory after five runs, in bytes: memory that is freed in batches rises and falls. */
async function lowest(work: () => Promise<void> | void): Promise<number> {
  let low = Infinity;
  for (let run = 0; run < 5; run += 1) {
    await work();
    low = Math.min(low, await heldAtRest());
  }
  return low;
}

/** Growth of held memory from the first five runs of `work` to the next five, in bytes. */
export async function heldAfter(work: () => Promise<void> | void): Promise<number> {
  await work();
  const before = await lowest(work);
  return (await lowest(work)) - before;
}
