import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestKinds } from '#base/file-requests.ts';
import type { FileServerFigures } from '#storage/request-figures.ts';
import * as v from 'valibot';
import { requestsOf, requestsSchema, ServedRequests } from './served-requests.ts';

/** Figures of a server with as many requests of each kind. */
function figuresOf(count: number): FileServerFigures {
  const reading = { buckets: [{ upTo: 1, count }], count, sum: count / 10 };
  const [look, read, write, change, flush, other] = requestKinds.map(() => reading);
  assert.ok(look && read && write && change && flush && other);
  return { requests: { look, read, write, change, flush, other }, oldestSeconds: 0, privateBytes: 4096 };
}

test('the requests of a pod never decrease when one of its file servers ends', () => {
  const served = new ServedRequests();
  const sum = (read: ReadonlyMap<number, FileServerFigures>, running: readonly number[]) => {
    const others = served.take(read, running);
    const live = [...read].filter(([pid]) => running.includes(pid)).map(([, { requests }]) => requests);
    return requestsOf([...live, ...(others === undefined ? [] : [others])]).write;
  };
  const both = new Map([
    [7, figuresOf(100)],
    [8, figuresOf(30)],
  ]);
  assert.equal(sum(both, [7, 8]).count, 130);
  assert.equal(sum(new Map([[8, figuresOf(31)]]), [8]).count, 131);
  assert.equal(sum(new Map([[8, figuresOf(32)]]), [8]).count, 132);
  assert.equal(sum(both, [8]).count, 130, 'a reading from before the end, which comes late, is not counted twice');
  assert.equal(sum(new Map([[8, figuresOf(32)]]), [8]).count, 132);
  assert.equal(sum(new Map(), [8]).count, 132, 'one that cannot be read has what it had');
  const last = sum(new Map([[9, figuresOf(1)]]), [9]);
  assert.deepEqual([last.count, last.buckets[0]?.count, last.sum.toFixed(1)], [133, 133, '13.3']);
});

test('what ended servers have counted outlives this process', () => {
  let recorded: string | undefined;
  const before = new ServedRequests(undefined, (ended) => (recorded = JSON.stringify(ended)));
  before.take(new Map([[7, figuresOf(100)]]), [7]);
  assert.equal(recorded, undefined);
  before.take(new Map(), []);
  const kept = v.parse(requestsSchema, JSON.parse(recorded ?? ''));
  const after = new ServedRequests(kept);
  assert.deepEqual(after.take(new Map(), []), figuresOf(100).requests);
});
