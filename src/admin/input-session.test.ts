import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { channel } from '#api/exec.ts';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log.ts';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { createFakeSandboxes } from '#pod/testing/fake-sandbox.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { serveInput } from './input-session.ts';
import { FakeSocket } from './testing/fake-socket.ts';

/** A container that runs, with an input. */
async function open() {
  const sandboxes = createFakeSandboxes(createFakeClock());
  const signal = new AbortController().signal;
  const sandbox = await sandboxes.run(sandboxSpec, signal);
  const container = await sandbox.createContainer({ ...containerSpec, name: 'main', stdin: true, tty: true }, signal);
  await container.start(signal);
  const stdin = container.stdin as PassThrough; // SAFE: the fake's
  const converse = (stdinOnce: boolean) => {
    const socket = new FakeSocket();
    const session = serveInput(socket.asClient(), () => ({ container, stdinOnce }), silentLog);
    const say = (to: number, body: string | Buffer) =>
      socket.emit('message', Buffer.concat([Buffer.from([to]), Buffer.from(body)]), true);
    return { socket, session, say };
  };
  return { sandboxes, stdin, converse };
}

const listeners = (stdin: PassThrough) =>
  ['drain', 'close', 'error'].map((event) => stdin.listenerCount(event)).join(' ');

describe('serveInput()', () => {
  it("passes a client's input and terminal size on, and ends the container's input with it", async () => {
    const { sandboxes, stdin, converse } = await open();
    const { session, say } = converse(true);
    say(channel.stdin, 'one ');
    say(channel.resize, '{"Width":77,"Height":33}');
    say(channel.resize, '{"Width":0}');
    say(channel.stdin, 'two');
    say(channel.close, Buffer.from([channel.stdin]));
    assert.equal(await text(stdin), 'one two');
    assert.ok(sandboxes.journal.includes('resize main/0 77x33'));
    sandboxes.current('main').exit(0);
    await session;
  });

  it('leaves the input open for the next client where the Pod does not say stdinOnce', async () => {
    const { stdin, converse } = await open();
    const before = listeners(stdin);
    for (const word of ['one ', 'two']) {
      const { socket, session, say } = converse(false);
      say(channel.stdin, word);
      say(channel.close, Buffer.from([channel.stdin]));
      socket.close();
      await session;
    }
    assert.equal(listeners(stdin), before, 'no session leaves a listener');
    assert.equal(stdin.writable, true);
    stdin.end();
    assert.equal(await text(stdin), 'one two');
  });

  it('stops reading from a client while the container does not read', async () => {
    const { sandboxes, stdin, converse } = await open();
    const { socket, session, say } = converse(true);
    say(channel.stdin, 'x'.repeat(1024 * 1024));
    assert.equal(socket.isPaused, true);
    const resumed = once(socket, 'resumed');
    stdin.resume();
    await resumed;
    assert.equal(socket.isPaused, false);
    sandboxes.current('main').exit(0);
    await session;
    assert.equal(socket.readyState, 3);
  });

  it('tells the client why there is no input', async () => {
    const socket = new FakeSocket();
    const refuse = () => {
      throw new PodvmError('failedPrecondition', 'Cannot pass input to web/main: it does not run');
    };
    await serveInput(socket.asClient(), refuse, silentLog);
    const [frame = Buffer.alloc(1)] = socket.sent;
    assert.equal(frame[0], channel.status);
    assert.match(frame.subarray(1).toString(), /failedPrecondition.*it does not run/);
  });
});
