import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogRecord } from '#sandbox/log/log-format.ts';
import { lineQueryOf, linesOf } from './log-lines.ts';

const record = (second: number, text: string, stream: LogRecord['stream'] = 'stdout'): LogRecord => ({
  time: `2026-01-31T12:00:0${second}.123456789Z`,
  stream,
  endsLine: text.endsWith('\n'),
  bytes: Buffer.from(text),
});
const records = [record(1, 'a\n'), record(2, 'b'), record(3, 'e\n', 'stderr'), record(4, 'c\n'), record(5, 'd\n')];
async function textOf(query: string): Promise<string> {
  const all = (async function* () {
    yield* records;
  })();
  const chunks = await Array.fromAsync(linesOf(all, lineQueryOf(new URLSearchParams(query))));
  return Buffer.concat(chunks).toString();
}
const at = (second: number, fraction = '') => encodeURIComponent(`2026-01-31T13:00:0${second}${fraction}+01:00`);

test('linesOf() takes the lines between two times, of any zone', async () => {
  assert.equal(await textOf(''), 'a\nbe\nc\nd\n');
  assert.equal(await textOf(`since=${at(3)}`), 'e\nc\nd\n');
  assert.equal(await textOf(`until=${at(3)}`), 'a\nb');
  assert.equal(await textOf(`since=${at(4, '.123')}&until=${at(4, '.123')}`), 'c\n');
  assert.equal(await textOf(`since=${at(9)}`), '');
});

test('linesOf() begins each line with its time, and no part of a line', async () => {
  const time = (second: number) => `2026-01-31T12:00:0${second}.123456789Z`;
  assert.equal(await textOf('timestamps=true'), `${time(1)} a\n${time(2)} b${time(3)} e\nc\n${time(5)} d\n`);
});

test('lineQueryOf() refuses what is no time', () => {
  assert.throws(() => lineQueryOf(new URLSearchParams('since=yesterday')), {
    kind: 'invalid',
    message: 'Cannot read logs: since must be a time, got yesterday',
  });
});
