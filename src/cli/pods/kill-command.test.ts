import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signalNumber } from './kill-command.ts';

test('signalNumber() reads names with and without SIG, in any case, and numbers', () => {
  for (const word of ['TERM', 'SIGTERM', 'sigterm', 'term', '15']) assert.equal(signalNumber(word), 15, word);
  assert.equal(signalNumber('HUP'), 1);
  assert.equal(signalNumber('64'), 64);
  for (const word of ['', '0', '65', '-9', 'SIGNONE', 'RTMIN+1', '1.5']) {
    assert.throws(() => signalNumber(word), { kind: 'invalid' }, word);
  }
});
