import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestKinds, requestPage } from '#base/file-requests.ts';
import { meanSecondsBetween, parseRequestPage, readFileServerFigures } from './request-figures.ts';

function pageOf(words: Readonly<Record<number, bigint>>): Buffer {
  const page = Buffer.alloc(requestPage.bytes);
  for (const [at, value] of Object.entries(words)) page.writeBigUInt64LE(value, 8 * Number(at));
  return page;
}

test('parseRequestPage() adds up the counts of each kind, those above all bounds included', () => {
  const read = requestPage.kindsAt + requestPage.wordsOfKind * requestKinds.indexOf('read');
  const { requests, oldestSeconds } = parseRequestPage(
    pageOf({ 0: 5_000_000_000n, [read]: 3n, [read + 2]: 1n, [read + 6]: 2n, [read + 7]: 41_500_000_000n }),
    7_500_000_000n,
  );
  assert.deepEqual(
    requests.read.buckets.map(({ count }) => count),
    [3, 3, 4, 4, 4, 4],
  );
  assert.deepEqual([requests.read.count, requests.read.sum, oldestSeconds], [6, 41.5, 2.5]);
  assert.deepEqual([requests.flush.count, requests.flush.sum], [0, 0]);
});

test('parseRequestPage() makes finite numbers of any page, and no age before the present', () => {
  const { requests, oldestSeconds } = parseRequestPage(Buffer.alloc(requestPage.bytes, 0xff), 7n);
  assert.equal(oldestSeconds, 0);
  for (const { count, sum, buckets } of Object.values(requests)) {
    for (const value of [count, sum, ...buckets.map((each) => each.count)]) assert.ok(Number.isFinite(value));
  }
});

test('readFileServerFigures() opens no descriptor that is not the memory of a file server', async () => {
  assert.equal(await readFileServerFigures(process.pid, 0n), undefined);
  assert.equal(await readFileServerFigures(2 ** 22, 0n), undefined);
});

test('meanSecondsBetween() counts requests that have ended meanwhile and the oldest under way, but no locks', () => {
  const reading = (count: number, sum: number) => ({ buckets: [], count, sum });
  const figures = (written: number, sum: number, oldestSeconds: number) => ({
    ...{ oldestSeconds, privateBytes: 0 },
    requests: {
      ...{ look: reading(9, 0.1), read: reading(0, 0), change: reading(0, 0), flush: reading(0, 0) },
      ...{ write: reading(written, sum), other: reading(written, 1000 * sum) },
    },
  });
  assert.equal(meanSecondsBetween(figures(100, 1, 0), figures(100, 1, 0)), 0);
  assert.equal(meanSecondsBetween(figures(100, 1, 0), figures(104, 3, 0)), 0.5);
  assert.equal(meanSecondsBetween(figures(100, 1, 0), figures(103, 2, 1)), 0.5);
  assert.equal(meanSecondsBetween(figures(100, 1, 9), figures(1, 0, 0)), 0); // another server
});
