import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '#wire/limits.ts';
import { agentEventSchema, type ToldEvent } from '#wire/messages.ts';
import * as v from 'valibot';
import { again } from '#engine/engine.ts';
import { TerminationMessages } from './termination-messages.ts';

const overflow = -1;

/** Files in memory, and an inotify controlled by the test; `pass` lets the next timer fire. */
function guest(queueLength = Infinity) {
  const files = new Map<string, string>();
  const watches = new Map<string, number>();
  const queue: number[] = [];
  const timers: { readonly ms: number; readonly handler: () => void }[] = [];
  const open: { readonly path: string; offset: number }[] = [];
  const told: ToldEvent[] = [];
  let onReadable: ((events: number) => void) | undefined;
  const readEvents = (into: Uint8Array) => {
    const numbers = queue.splice(0, into.length / 16);
    numbers.forEach((number, at) => new DataView(into.buffer).setInt32(at * 16, number, true));
    return numbers.length === 0 ? again : numbers.length * 16;
  };
  const parts = {
    openInotify: () => 1000,
    watchFile: (_inotify: number, path: string) => {
      watches.set(path, watches.size + 1);
      return watches.size;
    },
    watch: (_fd: number, _interest: number, handler: (events: number) => void) => void (onReadable = handler),
    unwatch: () => void (onReadable = undefined),
    setTimer: (ms: number, handler: () => void) => timers.push({ ms, handler }),
    open: (path: string) => {
      if (!files.has(path)) throw Object.assign(new Error('no file'), { code: 'ENOENT' });
      return open.push({ path, offset: 0 }) - 1;
    },
    close: () => {},
    read: (fd: number, into: Uint8Array, offset = 0) => {
      if (fd === 1000) return readEvents(into);
      const file = open[fd] ?? assert.fail('not open');
      const bytes = Buffer.from(files.get(file.path) ?? '').subarray(file.offset, file.offset + into.length - offset);
      into.set(bytes, offset);
      file.offset += bytes.length;
      return bytes.length;
    },
    encodeBase64: (bytes: Uint8Array) => Buffer.from(bytes).toString('base64'),
  };
  return {
    parts,
    timers,
    queue,
    files,
    watches,
    messages: new TerminationMessages(parts, (event) => told.push(event)),
    get isListening() {
      return onReadable !== undefined;
    },
    write(path: string, text: string, times = 1) {
      files.set(path, text);
      for (let n = 0; n < times; n += 1) queue.push(watches.get(path) ?? assert.fail('not watched'));
      if (queue.length > queueLength) queue.splice(queueLength, Infinity, overflow);
      onReadable?.(1);
    },
    pass() {
      const { ms, handler } = timers.shift() ?? assert.fail('no timer');
      handler();
      return ms;
    },
    told: () =>
      told.splice(0).map((event) => {
        const parsed = v.parse(agentEventSchema, event); // as the host parses it
        assert.ok(parsed.kind === 'terminationMessage', parsed.kind);
        return [parsed.containerId, Buffer.from(parsed.data, 'base64').toString()];
      }),
    warnings: () => told.filter(({ kind }) => kind === 'log'),
  };
}

test('watch() reports what a container wrote shortly afterwards, and waits without a timer', () => {
  const { messages, timers, ...it } = guest();
  messages.watch('a', '/a');
  assert.deepEqual([it.told(), timers.length], [[], 0]);
  it.write('/a', '');
  it.write('/a', 'why');
  assert.deepEqual(it.told(), []);
  assert.equal(it.pass(), 20);
  assert.deepEqual(it.told(), [['a', 'why']]);
});

test('watch() reads an endlessly written log at most five times a second, and misses no last text', () => {
  const it = guest();
  it.messages.watch('a', '/a');
  let ms = 0;
  for (let looks = 0; looks < 10; looks += 1) {
    it.write('/a', `${looks}`, 50);
    ms += it.pass(); // settled
    assert.deepEqual(it.told(), [['a', `${looks}`]]);
    it.write('/a', 'meanwhile');
    assert.equal(it.isListening, false);
    ms += it.pass(); // rested
  }
  assert.equal(ms, 2000);
  it.write('/a', 'last');
  it.pass();
  assert.deepEqual(it.told(), [['a', 'last']]);
});

test('watch() reports only containers that wrote, and no removed ones', () => {
  const it = guest();
  for (const id of ['a', 'b', 'c']) it.messages.watch(id, `/${id}`);
  it.write('/b', 'b');
  it.write('/c', 'c');
  it.messages.forget('c');
  it.pass();
  assert.deepEqual(it.told(), [['b', 'b']]);
});

test('watch() finds one container’s text despite another’s flood, even if the kernel drops events', () => {
  for (const queueLength of [Infinity, 2]) {
    const it = guest(queueLength);
    it.messages.watch('loud', '/loud');
    it.messages.watch('quiet', '/quiet');
    it.write('/loud', 'noise', 10_000);
    it.write('/quiet', 'help');
    it.pass();
    assert.deepEqual(it.told(), [
      ['loud', 'noise'],
      ['quiet', 'help'],
    ]);
    assert.equal(it.queue.length, 0);
  }
});

test('watch() reports the start of a text that is too long', () => {
  const it = guest();
  it.messages.watch('a', '/a');
  it.write('/a', 'x'.repeat(limits.maxTerminationBytes + 1));
  it.pass();
  assert.deepEqual(it.told(), [['a', 'x'.repeat(limits.maxTerminationBytes)]]);
});

test('watch() continues after a log that cannot be read', () => {
  const it = guest();
  it.messages.watch('a', '/a');
  it.write('/a', 'lost');
  it.files.clear();
  assert.throws(() => it.pass(), { code: 'ENOENT' }); // the loop reports it
  it.pass();
  it.write('/a', 'back');
  it.pass();
  assert.deepEqual(it.told(), [['a', 'back']]);
});

test('watch() warns, and does not fail, when the kernel’s watches are exhausted', () => {
  const it = guest();
  it.parts.watchFile = () => {
    throw new Error('Cannot watch /a: ENOSPC');
  };
  it.messages.watch('a', '/a');
  assert.match(JSON.stringify(it.warnings()), /cannot watch the termination log of a: .*ENOSPC/);
});
