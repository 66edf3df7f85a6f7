import assert from 'node:assert/strict';
import { test } from 'node:test';
import { again, ready } from '#engine/engine.ts';
import { ModuleRequests } from './module-requests.ts';

/** A fake kernel whose helpers connect one after another; each sends its parts, and then ends. */
function kernel() {
  const handlers = new Map<number, (events: number) => void>();
  const said = new Map<number, string[]>();
  const answers: string[] = [];
  let waiting: number[] = [];
  let next = 100;
  const parts = {
    listenUnix: () => 1,
    accept: () => waiting.shift() ?? again,
    receive: (fd: number, buffer: Uint8Array) => {
      const part = new TextEncoder().encode(said.get(fd)?.shift() ?? '').subarray(0, buffer.length);
      buffer.set(part);
      return { bytes: part.length, fds: [] };
    },
    watch: (fd: number, _interest: number, handler: (events: number) => void) => void handlers.set(fd, handler),
    unwatch: (fd: number) => void handlers.delete(fd),
    write: (fd: number) => answers.push(`${fd} +`),
    close: (fd: number) => {
      handlers.delete(fd);
      answers.push(`${fd} end`);
    },
    makeDirectories: () => {},
    symlink: () => {},
    writeExisting: () => {},
    encodeUtf8: (text: string) => new TextEncoder().encode(text),
    decodeUtf8: (bytes: Uint8Array, offset = 0, length = 0) =>
      new TextDecoder().decode(bytes.subarray(offset, offset + length)),
  };
  const connect = (...texts: string[]) => {
    const fd = next;
    next += 1;
    said.set(fd, texts);
    waiting = [fd];
    handlers.get(1)?.(ready.readable);
    return fd;
  };
  const speak = (fd: number) => handlers.get(fd)?.(ready.readable);
  return { parts, connect, speak, answers };
}

test('a helper gets an answer once it has sent its name, in parts or whole', async () => {
  const { parts, connect, speak, answers } = kernel();
  const asked: string[] = [];
  new ModuleRequests(parts, async (name) => asked.push(name) === 1).start();
  const [first, second] = [connect('nf_', 'tables'), connect('vcan')];
  for (let count = 0; count < 3; count += 1) speak(first);
  for (let count = 0; count < 2; count += 1) speak(second);
  await new Promise(setImmediate);
  assert.deepEqual(asked, ['nf_tables', 'vcan']);
  assert.deepEqual(answers, [`${first} +`, `${first} end`, `${second} end`]);
});

test('a helper that sends too much is disconnected, and so is the 65th at a time', async () => {
  const { parts, connect, speak, answers } = kernel();
  new ModuleRequests(parts, async (name) => assert.fail(name)).start();
  const long = connect('x'.repeat(65), 'y');
  speak(long);
  await new Promise(setImmediate);
  assert.deepEqual(answers, [`${long} end`]);
  answers.length = 0;
  const many = Array.from({ length: 65 }, () => connect());
  assert.deepEqual(answers, [`${many.at(-1)} end`]);
});
