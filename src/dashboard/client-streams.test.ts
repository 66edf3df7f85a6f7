import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CallError } from './client/api.ts';
import { followLines } from './client/follow-lines.ts';
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

test('followLines() reads again when the node is back, keeps what it has told meanwhile, and ends with the text', async () => {
  const texts: (() => AsyncIterable<string>)[] = [
    async function* () {
      yield 'one\ntwo\n';
      throw new CallError('unavailable', 'the node has cut the connection');
    },
    // eslint-disable-next-line require-yield
    async function* () {
      throw new CallError('unavailable', 'the node does not answer');
    },
    async function* () {
      yield 'one\ntwo\nthree\n';
    },
  ];
  const told: string[] = [];
  await followLines(() => texts.shift()?.() ?? assert.fail('it is read again after its end'), {
    tell: (lines) => told.push(lines.join()),
    onCut: ({ message }) => told.push(message),
    frames: { request: () => 0, cancel: () => {} },
    pause: async () => void told.push('pause'),
  });
  assert.deepEqual(told, [
    ...['one,two', 'the node has cut the connection', 'pause'],
    ...['the node does not answer', 'pause', 'one,two,three'],
  ]);
});

test('followLines() passes on why a text cannot be read, and stops when its page is left', async () => {
  const tell = () => assert.fail('nothing is told');
  const [frames, onCut] = [{ request: () => 0, cancel: () => {} }, () => {}];
  const failing = (kind: string) =>
    // eslint-disable-next-line require-yield
    async function* () {
      throw new CallError(kind, kind);
    };
  const pause = () => Promise.reject(new Error('left'));
  await assert.rejects(followLines(failing('notFound'), { tell, onCut, frames, pause }), /notFound/);
  await assert.rejects(followLines(failing('unavailable'), { tell, onCut, frames, pause }), /left/);
});
