import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { encodeFrame, frameKinds } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { connectLink } from './connect-link.ts';
import { Heartbeat } from './heartbeat.ts';
import { exampleWelcome, FakeAgent } from './testing/fake-agent.ts';

const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;
const callTimeoutMs = 1000;
const never = new AbortController().signal;
const connect = (agent: FakeAgent, handshakeTimeoutMs = 60_000, signal = never) =>
  connectLink({ open: () => Promise.resolve(agent.channel), handshakeTimeoutMs, callTimeoutMs }, signal);

describe('connectLink()', () => {
  it('fails at the deadline without an answer, and closes the channel', async () => {
    const agent = new FakeAgent();
    agent.ignoredHellos = Infinity;
    await assert.rejects(connect(agent, 50), kind('timeout'));
    assert.ok(agent.channel.destroyed);
  });

  it('fails as soon as the heartbeat finds a running agent silent, with what it found', async () => {
    const agent = new FakeAgent();
    agent.ignoredHellos = Infinity;
    const heartbeat = new Heartbeat({ lookMs: 1, quietMs: 0, answerMs: 1, patienceMs: 1_000 });
    const pulse = () => Promise.resolve({ isStopped: true, waitsForDisk: false, ranMs: 0, waitedMs: 0 });
    const connecting = connectLink(
      {
        open: () => Promise.resolve(agent.channel),
        handshakeTimeoutMs: 60_000,
        callTimeoutMs,
        isUp: true,
        pulse,
        heartbeat,
      },
      never,
    );
    await assert.rejects(connecting, {
      kind: 'timeout',
      message: /^Cannot reach the agent: the machine has not answered for \d+ s: its process is stopped$/,
    });
    assert.ok(agent.channel.destroyed);
  });

  it('stops when it is cancelled', async () => {
    const agent = new FakeAgent();
    agent.ignoredHellos = Infinity;
    await assert.rejects(connect(agent, 5000, AbortSignal.timeout(50)), kind('cancelled'));
  });

  it('refuses an agent without a common version', async () => {
    const agent = new FakeAgent();
    agent.welcome = { ...exampleWelcome, version: 0 };
    await assert.rejects(connect(agent), kind('unsupported'));
  });

  it('ignores a welcome of another epoch', async () => {
    const agent = new FakeAgent();
    agent.ignoredHellos = Infinity;
    const connecting = connect(agent, 100);
    agent.raw(encodeFrame(12_345, 0, frameKinds.message, Buffer.from(JSON.stringify(exampleWelcome))));
    await assert.rejects(connecting, kind('timeout'));
  });

  it('repeats the hello until it is answered', async () => {
    const agent = new FakeAgent();
    agent.ignoredHellos = 3;
    await using link = await connect(agent);
    assert.equal(agent.hellos, 4);
    assert.equal(String(link.welcome.engine), 'fake');
  });

  it('finds the answer after remains of an earlier connection in the channel', async () => {
    const agent = new FakeAgent();
    agent.raw(new Uint8Array(5000).fill(0x50));
    agent.raw(encodeFrame(99, 3, frameKinds.data, new Uint8Array(100)));
    agent.raw(encodeFrame(99, 3, frameKinds.data, new Uint8Array(100)).subarray(0, 50));
    agent.ignoredHellos = 3;
    await using link = await connect(agent);
    assert.equal(link.welcome.version, exampleWelcome.version);
  });

  it('reaches an agent that still waits for the rest of an earlier connection’s largest frame', async () => {
    const agent = new FakeAgent();
    const torn = encodeFrame(99, 0, frameKinds.message, new Uint8Array(limits.maxMessageBytes));
    agent.channel.write(torn.subarray(0, 100));
    await using link = await connect(agent);
    assert.equal(link.welcome.version, exampleWelcome.version);
  });

  it('reopens the channel when it breaks before the answer', async () => {
    const [torn, good] = [new FakeAgent(), new FakeAgent()];
    torn.ignoredHellos = Infinity;
    const channels = [torn, good];
    const open = () => {
      const agent = channels.shift();
      assert.ok(agent);
      if (agent === torn) setImmediate(() => torn.tear());
      return Promise.resolve(agent.channel);
    };
    await using link = await connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs }, never);
    assert.equal(link.welcome.version, exampleWelcome.version);
    assert.equal(torn.hellos, 1);
  });
});
