import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { SentOutput } from './sent-output.ts';

const bytes = (text: string) => Buffer.from(text);
const textOf = (sentAgain: Uint8Array) => Buffer.from(sentAgain).toString();
const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;

function sent(...texts: string[]): SentOutput {
  const output = new SentOutput();
  for (const text of texts) output.push(bytes(text));
  return output;
}

test('output that was not acknowledged is sent again, from any byte', () => {
  const output = sent('abc', 'def', 'ghi');
  output.acknowledge(4);
  assert.equal(textOf(output.after(5)), 'fghi');
  assert.equal(textOf(output.after(9)), '');
});

test('output that was acknowledged, or precedes the requested byte, is not kept', () => {
  const output = sent('abc', 'def');
  output.acknowledge(4);
  assert.throws(() => output.check(3), kind('exhausted'));
  assert.equal(textOf(output.after(5)), 'f');
  assert.throws(() => output.after(4), kind('exhausted'));
});

test('an offset beyond what was sent is refused, and an acknowledgement beyond it counts as all', () => {
  const output = sent('abc');
  assert.throws(() => output.after(4), kind('invalid'));
  output.acknowledge(1000);
  assert.equal(textOf(output.after(3)), '');
  output.push(bytes('def'));
  assert.equal(textOf(output.after(3)), 'def');
});

test('a reader of new output only, and bytes that were not sent, advance the offset', () => {
  const output = sent('abc');
  assert.equal(textOf(output.after(undefined)), '');
  output.skip(2);
  assert.throws(() => output.check(4), kind('exhausted'));
  output.push(bytes('f'));
  assert.equal(textOf(output.after(5)), 'f');
});
