import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { NodeCounts } from './node-counts.ts';

test('steps of starts are counted with their times, and a guest cannot add a step', () => {
  const counts = new NodeCounts(['machine ran']);
  for (const ms of [125, 500, 250])
    counts.started([
      { name: 'machine ran', ms },
      { name: 'boot from the guest', ms },
    ]);
  const [[name, reading] = [], ...others] = counts.phases;
  assert.deepEqual([name, others.length], ['machine ran', 0]);
  assert.deepEqual([reading?.count, reading?.sum], [3, 0.875]);
  assert.equal(reading?.buckets.find(({ upTo }) => upTo === 0.25)?.count, 2);
  assert.deepEqual(counts.medians.get('machine ran'), { ms: 250, starts: 3 });
});

test('the median is that of the latest hundred starts', () => {
  const counts = new NodeCounts([]);
  for (let start = 0; start < 100; start += 1) counts.started([{ name: 'total', ms: 5 }]);
  for (let start = 0; start < 100; start += 1) counts.started([{ name: 'total', ms: 50 }]);
  assert.deepEqual(counts.medians.get('total'), { ms: 50, starts: 100 });
});

test('failures are counted by kind, and every kind is present before its first failure', () => {
  const counts = new NodeCounts([]);
  counts.startFailed(new PodvmError('exhausted', 'no memory'));
  const failed = new Map(counts.failedStarts);
  assert.deepEqual([failed.get('exhausted'), failed.get('timeout')], [1, 0]);
});
