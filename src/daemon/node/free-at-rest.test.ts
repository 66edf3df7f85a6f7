import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { getHeapStatistics } from 'node:v8';
import { freeAtRest, itself } from './free-at-rest.ts';

const MiB = 1024 * 1024;

describe('freeAtRest()', () => {
  it('gives back what objects took that are gone', async () => {
    const idle = { ...itself(), isHostBusy: () => false, utilization: () => 0 }; // other tests may be at work
    const garbage = { kept: Array.from({ length: 400_000 }, (_, at) => ({ at, text: [at] })) };
    const fullBytes = getHeapStatistics().total_heap_size;
    garbage.kept = [];
    using _ = freeAtRest(idle);
    const deadlineMs = performance.now() + 60_000;
    while (getHeapStatistics().total_heap_size > fullBytes - 16 * MiB) {
      assert.ok(performance.now() < deadlineMs, `the heap still has ${getHeapStatistics().total_heap_size} bytes`);
      await delay(100);
    }
  });

  it('leaves a process alone that works, whose host works, or whose heap has not grown', async () => {
    const looks = new EventTarget();
    const seen = { collected: 0, heapBytes: 20 * MiB, utilization: 0.5, isHostBusy: false };
    const measured = {
      heapBytes: () => seen.heapBytes,
      utilization: () => {
        queueMicrotask(() => looks.dispatchEvent(new Event('looked')));
        return seen.utilization;
      },
      isHostBusy: () => seen.isHostBusy,
      collect: () => {
        seen.collected += 1;
        seen.heapBytes = 10 * MiB;
      },
    };
    using _ = freeAtRest(measured, { lookMs: 1, maxUtilization: 0.1, minGrowthBytes: 4 * MiB });
    const looked = () => once(looks, 'looked');
    await looked();
    await looked();
    assert.equal(seen.collected, 0, 'it works');
    Object.assign(seen, { utilization: 0.05, isHostBusy: true });
    await looked();
    await looked();
    assert.equal(seen.collected, 0, 'the host works');
    seen.isHostBusy = false;
    await looked();
    assert.equal(seen.collected, 1, 'it rests');
    seen.heapBytes = 13 * MiB;
    await looked();
    await looked();
    assert.equal(seen.collected, 1, 'the heap has hardly grown');
    seen.heapBytes = 14 * MiB;
    await looked();
    assert.equal(seen.collected, 2, 'the heap has grown');
  });
});
