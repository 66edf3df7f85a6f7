import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createPhases } from './phases.ts';

it('steps of a start are in the order in which they ended, each with its beginning', async () => {
  let nowMs = 1000;
  const phases = createPhases(() => BigInt(nowMs) * 1_000_000n);
  const slow = Promise.withResolvers<void>();
  const timed = phases.time('slow', slow.promise);
  nowMs += 20;
  await phases.time('quick', Promise.resolve());
  nowMs += 30;
  phases.add('guest', [
    { name: 'first', ms: 10 },
    { name: 'second', ms: 5 },
  ]);
  slow.resolve();
  await timed;
  await assert.rejects(phases.time('failed', Promise.reject(new Error('lost'))), /lost/);
  assert.deepEqual(phases.timeline(), [
    { name: 'quick', ms: 0, startMs: 20 },
    { name: 'guest first', ms: 10, startMs: 35 },
    { name: 'guest second', ms: 5, startMs: 45 },
    { name: 'slow', ms: 50, startMs: 0 },
    { name: 'total', ms: 50, startMs: 0 },
  ]);
});
