import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGate } from './gate.ts';

const never = new AbortController().signal;
const turns = () => new Promise((resolve) => setImmediate(resolve));

test('enter() admits a limited number of callers at a time, in order', async () => {
  const gate = createGate(2);
  const log: string[] = [];
  const visit = async (name: string) => {
    const turn = await gate.enter(never);
    log.push(name);
    return turn;
  };
  const [first, second, third, fourth] = [visit('1'), visit('2'), visit('3'), visit('4')] as const;
  await turns();
  assert.deepEqual(log, ['1', '2']);
  (await second)[Symbol.dispose]();
  await turns();
  assert.deepEqual(log, ['1', '2', '3']);
  (await first)[Symbol.dispose]();
  (await first)[Symbol.dispose](); // a second disposal has no effect
  (await third)[Symbol.dispose]();
  await fourth;
  assert.deepEqual(log, ['1', '2', '3', '4']);
});

test('a cancelled enter() gives its place to the next', async () => {
  const gate = createGate(1);
  const first = await gate.enter(never);
  const stop = new AbortController();
  const second = gate.enter(stop.signal);
  const third = gate.enter(never);
  stop.abort();
  await assert.rejects(second, { kind: 'cancelled' });
  await assert.rejects(gate.enter(stop.signal), { kind: 'cancelled' });
  first[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  await gate.enter(never);
});
