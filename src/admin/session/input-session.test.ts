import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { channel } from '#api/exec.ts';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { createFakeSandboxes } from '#pod/testing/fake-sandbox.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { serveInput } from './input-session.ts';
import { openSocketPair, until } from '../testing/socket-pair.ts';

/** A container that runs, with an input. */
async function open() {
  const sandboxes = createFakeSandboxes(createFakeClock());
  const signal = new AbortController().signal;
  const sandbox = await sandboxes.run(sandboxSpec, signal);
  const container = await sandbox.createContainer({ ...containerSpec, name: 'main', stdin: true, tty: true }, signal);
  await container.start(signal);
  const stdin = container.stdin as PassThrough; // SAFE: the fake's
  const converse = async (stdinOnce: boolean) => {
    const pair = await openSocketPair();
    return { ...pair, session: serveInput(pair.served, () => ({ container, stdinOnce }), silentLog) };
  };
  return { sandboxes, stdin, converse };
}

const listeners = (stdin: PassThrough) =>
  ['drain', 'close', 'error'].map((event) => stdin.listenerCount(event)).join(' ');

describe('serveInput()', () => {
  it("passes a client's input and terminal size on, and ends the container's input with it", async () => {
    const { sandboxes, stdin, converse } = await open();
    await using conversation = await converse(true);
    const { session, say } = conversation;
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

  it('leaves the input open for the next client unless the Pod has stdinOnce', async () => {
    const { stdin, converse } = await open();
    const before = listeners(stdin);
    for (const word of ['one ', 'two']) {
      await using conversation = await converse(false);
      conversation.say(channel.stdin, word);
      conversation.say(channel.close, Buffer.from([channel.stdin]));
      conversation.client.close();
      await conversation.session;
    }
    assert.equal(listeners(stdin), before, 'no session leaves a listener');
    assert.equal(stdin.writable, true);
    stdin.end();
    assert.equal(await text(stdin), 'one two');
  });

  it('stops reading from a client while the container does not read', async () => {
    const { sandboxes, stdin, converse } = await open();
    await using conversation = await converse(true);
    const { client, served, session, say } = conversation;
    say(channel.stdin, 'x'.repeat(1024 * 1024));
    await until('the client to wait', () => served.isPaused);
    stdin.resume();
    await until('the client to go on', () => !served.isPaused);
    const closed = once(client, 'close');
    sandboxes.current('main').exit(0);
    await session;
    await closed;
  });

  it('tells the client why it has no input', async () => {
    await using pair = await openSocketPair();
    const refuse = () => {
      throw new PodvmError('failedPrecondition', 'Cannot pass input to web/main: it does not run');
    };
    const told = once(pair.client, 'message');
    await serveInput(pair.served, refuse, silentLog);
    const [frame] = (await told) as [Buffer]; // SAFE: the event's own arguments
    assert.equal(frame[0], channel.status);
    assert.match(frame.subarray(1).toString(), /failedPrecondition.*it does not run/);
  });
});
