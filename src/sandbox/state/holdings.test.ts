import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Holdings } from './holdings.ts';

/** Holds a thing of each name; `broken` ones cannot be undone. */
function held(things: readonly (readonly [name: string, until: 'started' | 'ended' | 'removed'])[]) {
  const holdings = new Holdings();
  const seen: string[] = [];
  const broken = new Set<string>();
  for (const [name, until] of things) {
    holdings.hold(until, async () => {
      seen.push(name);
      if (broken.has(name)) throw new Error(`${name} stays`);
    });
  }
  return { holdings, seen, broken, undone: () => seen.splice(0) };
}

const all = [
  ['name', 'removed'],
  ['turn', 'started'],
  ['directory', 'removed'],
  ['network', 'ended'],
  ['machine', 'ended'],
] as const;

test('end() undoes everything held until that point in reverse order, each once', async () => {
  const { holdings, undone } = held(all);
  await holdings.end('started');
  assert.deepEqual(undone(), ['turn']);
  await holdings.end('ended');
  assert.deepEqual(undone(), ['machine', 'network']);
  await holdings.end('removed');
  assert.deepEqual(undone(), ['directory', 'name']);
  await holdings[Symbol.asyncDispose]();
  assert.deepEqual(undone(), []);
});

test('end() continues after a failed undo, keeps it and everything with a longer lifetime, and retries it later', async () => {
  const { holdings, undone, broken } = held(all);
  broken.add('machine');
  await assert.rejects(holdings.end('ended'), /machine stays/);
  assert.deepEqual(undone(), ['turn', 'machine', 'network']);
  await assert.rejects(holdings.end('removed'), /machine stays/);
  assert.deepEqual(undone(), ['machine']);
  broken.clear();
  await holdings.end('removed');
  assert.deepEqual(undone(), ['machine', 'directory', 'name']);
});

test('end() throws all failures, with the first as the innermost', async () => {
  const { holdings, broken } = held(all);
  for (const name of ['machine', 'network']) broken.add(name);
  await assert.rejects(holdings.end('ended'), (error) => {
    assert.ok(error instanceof SuppressedError);
    assert.match(String(error.error), /network stays/);
    assert.match(String(error.suppressed), /machine stays/);
    return true;
  });
});

test('disposing undoes everything, shortest lifetime first, despite failures', async () => {
  const { holdings, undone, broken } = held(all);
  broken.add('network');
  await assert.rejects(holdings[Symbol.asyncDispose](), /network stays/);
  assert.deepEqual(undone(), ['turn', 'machine', 'network', 'directory', 'name']);
});

test('takeFrom() appends the holdings of another', async () => {
  const { holdings, undone, seen } = held([['name', 'ended']]);
  const spare = new Holdings();
  spare.hold('ended', () => void seen.push('spare'));
  holdings.takeFrom(spare);
  await spare[Symbol.asyncDispose]();
  assert.deepEqual(undone(), []);
  await holdings[Symbol.asyncDispose]();
  assert.deepEqual(undone(), ['spare', 'name']);
});

test('concurrent calls of remove() share one attempt, and a call after a failure makes another', async () => {
  const { holdings, undone, broken } = held([['directory', 'removed']]);
  broken.add('directory');
  const results = await Promise.allSettled([holdings.remove(), holdings.remove()]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.deepEqual(undone(), ['directory']);
  broken.clear();
  await holdings.remove();
  await holdings.remove();
  assert.deepEqual(undone(), ['directory']);
});
