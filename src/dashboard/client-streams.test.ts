import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxLines, tellLines } from './client/tell-lines.ts';
import { whileVisible } from './client/while-visible.ts';

test('whileVisible() ends the work of a hidden page, and begins it again when the page is visible', () => {
  const page = Object.assign(new EventTarget(), { hidden: false });
  const signals: AbortSignal[] = [];
  const see = (isSeen: boolean) => {
    page.hidden = !isSeen;
    page.dispatchEvent(new Event('visibilitychange'));
    return signals.map(({ aborted }) => aborted);
  };
  const leave = whileVisible(page, (signal) => signals.push(signal));
  assert.deepEqual(see(true), [false]);
  assert.deepEqual(see(false), [true]);
  assert.deepEqual(see(false), [true]);
  assert.deepEqual(see(true), [true, false]);
  leave();
  assert.deepEqual(see(false), [true, true]);
  assert.deepEqual(see(true), [true, true]);
});

test('whileVisible() begins nothing in a page that is opened in a hidden tab', () => {
  const page = Object.assign(new EventTarget(), { hidden: true });
  whileVisible(page, () => assert.fail('it has begun'))();
});

test('tellLines() tells lines once in a frame, and those at the end of a text after all others', async () => {
  const told: (readonly string[])[] = [];
  const waiting = new Map<number, () => void>();
  const frames = {
    request: (act: () => void) => waiting.set(waiting.size + 1, act).size,
    cancel: (frame: number) => void waiting.delete(frame),
  };
  const draw = () => {
    for (const [frame, act] of waiting) {
      waiting.delete(frame);
      act();
    }
  };
  const ending = async function* () {
    yield 'one\ntw';
    yield 'o\n';
    draw();
    yield 'three\nfour';
    throw new Error('it broke');
  };
  await assert.rejects(
    tellLines(ending(), (lines) => told.push(lines), frames),
    /it broke/,
  );
  draw();
  assert.deepEqual(told, [
    ['one', 'two'],
    ['one', 'two', 'three', 'four'],
  ]);
  const long = async function* () {
    yield `${'x'.repeat(10_000)}\n${'line\n'.repeat(maxLines)}`;
  };
  let last: readonly string[] = [];
  await tellLines(long(), (lines) => (last = lines), frames);
  assert.equal(last.length, maxLines);
  assert.equal(last[0], 'line');
});
