import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryRequestOf } from './resources.ts';

const mib = 2 ** 20;

test('memoryRequestOf() finds what a kubelet has turned into an OOM score', () => {
  const nodeBytes = 8000 * mib;
  const requestOf = (oomScoreAdj: bigint, limitMiB = 0n) =>
    memoryRequestOf({ oomScoreAdj, memoryLimitInBytes: limitMiB << 20n }, nodeBytes).memoryRequestBytes;
  assert.equal(requestOf(-997n, 128n), 128 * mib, 'Guaranteed: as its limit');
  assert.equal(requestOf(-997n), undefined, 'critical, without a limit');
  assert.equal(requestOf(1000n), undefined, 'BestEffort');
  assert.equal(requestOf(0n, 128n), undefined, 'not of a kubelet');
  for (const request of [64, 100, 1000, 7000]) {
    const score = BigInt(1000 - Math.floor((1000 * request * mib) / nodeBytes)); // as the kubelet computes it
    const found = requestOf(score) ?? 0;
    assert.ok(Math.abs(found - request * mib) <= nodeBytes / 1000, `${found / mib} instead of ${request} MiB`);
  }
  assert.deepEqual(memoryRequestOf(undefined, nodeBytes), {});
});
