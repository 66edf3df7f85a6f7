import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawText } from '#base/guest-text.ts';
import { silentLog } from '#host/log/log.ts';
import { createOutputs, createOutputTail } from './outputs.ts';

const chunk = { stream: 'stdout', bytes: Buffer.from('x') } as const;
const never = () => new Promise<void>(() => {});

test('deliver() waits for a slow listener until it unsubscribes', async () => {
  const outputs = createOutputs(silentLog);
  const leave = outputs.listen(never);
  let isDelivered = false;
  const delivery = outputs.deliver('a', chunk).then(() => (isDelivered = true));
  await new Promise(setImmediate);
  assert.equal(isDelivered, false);
  leave();
  await delivery;
});

test('deliver() drops a failing listener, and continues with the others', async () => {
  const outputs = createOutputs(silentLog);
  let bad = 0;
  let good = 0;
  outputs.listen(async () => {
    bad += 1;
    throw new Error('gone');
  });
  outputs.listen(async () => void (good += 1));
  await outputs.deliver('a', chunk);
  await outputs.deliver('a', chunk);
  assert.deepEqual([bad, good], [1, 2]);
});

test('giveUp() releases all waiters', async () => {
  const outputs = createOutputs(silentLog);
  outputs.listen(never);
  outputs.listen(() => never());
  const delivery = outputs.deliver('a', chunk);
  outputs.giveUp();
  await delivery;
});

test('createOutputTail() keeps the last 2048 bytes and 80 lines', () => {
  const bytes = createOutputTail();
  bytes.add(Buffer.from(`${'a'.repeat(5000)}end`));
  assert.equal(rawText(bytes.text()).length, 2048);
  assert.ok(rawText(bytes.text()).endsWith('aend'));
  const numbered = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, at) => `${from + at}\n`).join('');
  const lines = createOutputTail();
  for (let line = 1; line <= 200; line += 1) lines.add(Buffer.from(`${line}\n`));
  assert.equal(rawText(lines.text()), numbered(121, 200), 'the newline at the end begins no line');
  lines.add(Buffer.from('and more'));
  assert.equal(rawText(lines.text()), `${numbered(122, 200)}and more`);
  const empty = createOutputTail();
  empty.add(Buffer.from('\n'.repeat(100)));
  assert.equal(rawText(empty.text()), '\n'.repeat(80));
});
