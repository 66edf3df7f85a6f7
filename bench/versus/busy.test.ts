import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { busyShare, measureBusy } from './busy.ts';

describe('busyShare()', () => {
  const before = 'cpu  1000 100 500 9000 50 0 20 30 400 7\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n';

  it('counts what ran between two readings, and nothing before', () => {
    assert.equal(busyShare(before, 'cpu  1020 105 510 9155 50 0 25 35 410 7\ncpu0 0\n'), 45 / 200);
    assert.equal(busyShare(before, 'cpu  1000 100 500 9100 50 0 20 30 400 7\n'), 0);
  });

  it('counts no wait for a disk, and time of guests once', () => {
    assert.equal(busyShare(before, 'cpu  1050 100 500 9000 100 0 20 30 450 7\n'), 0.5);
  });

  it('is nothing between two equal readings', () => {
    assert.equal(busyShare(before, before), 0);
  });
});

describe('measureBusy()', () => {
  it('sees work of the moment', async () => {
    const over = new AbortController();
    const measured = measureBusy(500, AbortSignal.timeout(60_000)).finally(() => over.abort());
    while (!over.signal.aborted) {
      const untilMs = performance.now() + 20;
      while (performance.now() < untilMs); // this process works, or others in its place
      await setImmediate(); // the measurement goes on
    }
    const busy = await measured;
    assert.ok(busy > 0 && busy <= 1, `got ${busy}`);
  });
});
