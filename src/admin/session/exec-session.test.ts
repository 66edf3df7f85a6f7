import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { channel } from '#api/exec.ts';
import { silentLog } from '#host/log/log.ts';
import { frozen } from '#link/agent-link.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import { serveExec } from './exec-session.ts';
import { openSocketPair, until } from '../testing/socket-pair.ts';

const ended = () => PassThrough.from([]);

describe('serveExec()', () => {
  it('waits for a slow process without adding listeners, and passes on all input', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => warnings.push(warning);
    process.on('warning', note);
    await using pair = await openSocketPair();
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
    const session = serveExec(pair.served, false, () => Promise.resolve(exec), silentLog);
    const sent = Array.from({ length: 30 }, (_, at) => `piece ${at}`);
    for (const piece of sent) pair.say(channel.stdin, piece);
    await until('all input to be taken', () => taken.length === sent.length);
    stdin.destroy(); // closed by its process; later input has no reader
    pair.say(channel.stdin, 'late');
    await until('later input not to stop the client', () => !pair.served.isPaused);
    const status = once(pair.client, 'message');
    exit.resolve({ exitCode: 0 });
    await session;
    const [frame] = (await status) as [Buffer]; // SAFE: the event's own arguments
    assert.deepEqual([frame[0], frame.subarray(1).toString()], [channel.status, '{"exitCode":0}']);
    process.off('warning', note);
    assert.deepEqual(taken, sent);
    assert.deepEqual(warnings, []);
  });

  it('ends the process of a client that has left a paused pod once the pod continues', async () => {
    await using pair = await openSocketPair();
    const exit = Promise.withResolvers<{ exitCode: number }>();
    let kills = 0;
    const exec: Exec = {
      stdout: ended(),
      exited: exit.promise,
      resize: () => Promise.resolve(),
      kill: async (signal) => {
        kills += 1;
        if (kills === 1) throw frozen('Cannot reach the guest');
        exit.resolve({ exitCode: 128 + signal });
      },
    };
    const session = serveExec(pair.served, false, () => Promise.resolve(exec), silentLog);
    pair.client.terminate();
    await session;
    assert.equal(kills, 2);
  });
});
