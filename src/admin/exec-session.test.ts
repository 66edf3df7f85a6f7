import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { channel } from '#api/exec.ts';
import { silentLog } from '#host/log.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import { serveExec } from './exec-session.ts';
import { FakeSocket } from './testing/fake-socket.ts';

const frame = (text: string) => Buffer.concat([Buffer.from([channel.stdin]), Buffer.from(text)]);
const ended = () => PassThrough.from([]);

describe('serveExec()', () => {
  it('waits for a slow process without adding listeners, and passes on all input', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => warnings.push(warning);
    process.on('warning', note);
    const socket = new FakeSocket();
    const taken: string[] = [];
    const stdin = new Writable({
      highWaterMark: 1,
      write: (chunk: Buffer, _encoding, done) => {
        taken.push(chunk.toString());
        setImmediate(done);
      },
    });
    const exit = Promise.withResolvers<{ exitCode: number }>();
    const exec: Exec = {
      stdin,
      stdout: ended(),
      exited: exit.promise,
      resize: () => Promise.resolve(),
      kill: () => Promise.resolve(),
    };
    const session = serveExec(socket.asClient(), false, () => Promise.resolve(exec), silentLog);
    while (socket.listenerCount('message') === 0) await new Promise(setImmediate);
    const sent = Array.from({ length: 30 }, (_, at) => `piece ${at}`);
    for (const piece of sent) {
      if (socket.isPaused) await new Promise((resolve) => socket.once('resumed', resolve));
      socket.emit('message', frame(piece), true);
    }
    stdin.destroy(); // closed by its process; later input has no reader
    await new Promise(setImmediate);
    assert.equal(socket.isPaused, false);
    socket.emit('message', frame('late'), true);
    exit.resolve({ exitCode: 0 });
    await session;
    await new Promise(setImmediate);
    process.off('warning', note);
    assert.deepEqual(taken.slice(0, 29), sent.slice(0, 29));
    assert.ok(!taken.includes('late'));
    assert.deepEqual(warnings, []);
  });
});
