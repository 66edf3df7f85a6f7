import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findTranslatedCode, residentBytes, translatedCodeIn } from './translated-code.ts';

const line = (from: number, to: number, mode: string) =>
  `${from.toString(16)}-${to.toString(16)} ${mode} 00000000 00:00 0 \n`;

test('translatedCodeIn() finds what is both writable and executable, and few ranges even of a hostile VMM', () => {
  const maps =
    line(0x1000, 0x2000, 'r-xp') + line(0x7f0000000000, 0x7f0006000000, 'rwxp') + line(0x2000, 0x3000, 'rw-p');
  assert.deepEqual(translatedCodeIn(maps), [{ first: 0x7f0000000, count: 0x6000 }]);
  const many = Array.from({ length: 60_000 }, (_, at) => line(0x2000 * (at + 1), 0x2000 * (at + 1) + 0x1000, 'rwxp'));
  assert.equal(translatedCodeIn(many.join('')).length, 64);
});

test('a process that is gone has no translated code', async () => {
  assert.deepEqual(await findTranslatedCode(2 ** 22), []);
  assert.equal(await residentBytes(2 ** 22, [{ first: 1, count: 1 }]), 0);
});
