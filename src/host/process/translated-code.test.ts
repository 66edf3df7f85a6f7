import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
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

test('pages of ranges with a guard page between them are counted once, and those between them never', async (t) => {
  const program = spawn('cat', { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => program.kill('SIGKILL'));
  for (const line of ['one', 'two']) {
    program.stdin.write(line); // after the first answer, it does the same again, and touches no new page
    await once(program.stdout, 'data');
  }
  const pid = program.pid ?? 0;
  const [, from = '', to = ''] = /^(\w+)-(\w+) .*\[stack\]$/m.exec(await readFile(`/proc/${pid}/maps`, 'latin1')) ?? [];
  const stack = { first: Number.parseInt(from, 16) / 4096, end: Number.parseInt(to, 16) / 4096 };
  const pages = Array.from({ length: stack.end - stack.first }, (_, at) => ({ first: stack.first + at, count: 1 }));
  const bytes: number[] = [];
  for (const page of pages) bytes.push(await residentBytes(pid, [page]));
  const sumOf = (isIn: (at: number) => boolean) => bytes.reduce((sum, each, at) => sum + (isIn(at) ? each : 0), 0);
  assert.ok(bytes.includes(0) && bytes.includes(4096));
  const everyOf = async (step: number, from: number) => {
    const isIn = (at: number) => at % step === from;
    const ranges = pages.filter((_, at) => isIn(at));
    assert.equal(await residentBytes(pid, ranges), sumOf(isIn), `every page ${from} of ${step}`);
  };
  for (const from of [0, 1]) await everyOf(2, from); // these are read together,
  for (const from of [0, 1, 2]) await everyOf(3, from); // and these one by one
});
