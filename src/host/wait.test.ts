import assert from 'node:assert/strict';
import { test } from 'node:test';
import { poll, retry, within } from './wait.ts';

const never = new Promise<never>(() => {});

test('within() returns a result in time, and ignores a late failure', async () => {
  assert.equal(await within(Promise.resolve(1), { ms: 10_000 }), 1);
  await assert.rejects(within(Promise.reject(new Error('no')), { ms: 10_000 }), /no/);
  assert.equal(await within(never, { ms: 1 }), undefined);
  const gone = AbortSignal.abort();
  assert.equal(await within(never, { signal: gone }), undefined);
  const late = Promise.withResolvers<void>();
  const ending = new AbortController();
  const waiting = within(late.promise, { ms: 10_000, signal: ending.signal });
  ending.abort();
  assert.equal(await waiting, undefined);
  late.reject(new Error('not heard'));
});

test('poll() looks until it finds something or the signal aborts', async () => {
  let looks = 0;
  const third = async () => ((looks += 1) === 3 ? 'found' : undefined);
  assert.equal(await poll(third, { everyMs: 1, slowestMs: 2 }), 'found');
  assert.equal(looks, 3);
  const ending = new AbortController();
  const waiting = poll(async () => undefined, { everyMs: 1_000_000, signal: ending.signal });
  ending.abort();
  assert.equal(await waiting, undefined);
});

test('retry() retries passing errors until the time limit or an abort', async () => {
  const failing = (tries: number) => async () => {
    if ((tries -= 1) > 0) throw new Error(`${tries} to go`);
    return 'done';
  };
  const always = () => true;
  assert.equal(await retry(failing(3), always, { everyMs: 1, forMs: 60_000 }), 'done');
  await assert.rejects(
    retry(failing(9), (error) => !/7 to go/.test(String(error)), { everyMs: 1 }),
    /7 to go/,
  );
  await assert.rejects(retry(failing(Infinity), always, { everyMs: 1, forMs: 5 }), /to go/);
  const ending = new AbortController();
  const waiting = retry(failing(9), always, { everyMs: 1_000_000, signal: ending.signal });
  ending.abort();
  await assert.rejects(waiting, /7 to go/, 'the attempt after the abort is the last');
});
