import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encodeFrame, type FrameKind, frameKinds, FrameParser, headerBytes } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { agentMessageSchema, type AgentEvent, type Hello, type ToldEvent, type CallMessage } from '#wire/messages.ts';
import * as v from 'valibot';
import { again } from '#engine/engine.ts';
import { Channel, type ChannelParts } from './channel.ts';
import { AgentStream } from './stream.ts';

const epoch = 7;
const exited = (containerId: string): ToldEvent => ({
  kind: 'exited',
  containerId,
  exitCode: 0,
  oomKilled: false,
  finishedAtMs: 1,
});
const said = (containerId: string, data: string): ToldEvent => ({ kind: 'terminationMessage', containerId, data });
const killed: ToldEvent = { kind: 'oomKilled', containerId: 'c' };

/** A channel to a host that has sent nothing yet. `takes`: bytes of a write that its port takes. */
function awaitHost(
  onCall: (call: CallMessage) => void = () => assert.fail('not used here'),
  takes = (length: number) => length,
) {
  const heard: AgentEvent[] = [];
  const fromHost: Uint8Array[] = [];
  let look = (_events: number) => {};
  const parser = new FrameParser({
    decide: () => 'take',
    frame: (_, payload) => {
      const message = v.parse(agentMessageSchema, JSON.parse(Buffer.from(payload).toString()));
      if (message.t === 'event') heard.push(message.event);
    },
  });
  const unused = () => assert.fail('not used here');
  const parts: ChannelParts = {
    watch: (_fd, _interest, handler) => void (look = handler),
    unwatch: () => {},
    read: (_fd, into) => {
      const next = fromHost.shift();
      if (next === undefined) return again;
      const bytes = next.subarray(0, into.length);
      if (bytes.length < next.length) fromHost.unshift(next.subarray(bytes.length));
      into.set(bytes);
      return bytes.length;
    },
    write: (_fd, bytes, offset = 0, length = bytes.length) => {
      const taken = takes(length);
      parser.push(bytes.slice(offset, offset + taken));
      return taken;
    },
    encodeUtf8: (text) => Buffer.from(text),
    decodeUtf8: (bytes) => Buffer.from(bytes).toString(),
  };
  const channel = new Channel(parts, 3, {
    hello: () => ({ t: 'welcome', version: 1, agentVersion: '', engine: '', phases: [], configured: false }),
    call: onCall,
    ended: unused,
  });
  const say = (kind: FrameKind, payload: Uint8Array) => {
    fromHost.push(encodeFrame(epoch, 0, kind, payload));
    while (fromHost.length > 0) look(1);
  };
  const greet = (more: Partial<Hello> = {}) => {
    const hello = { t: 'hello', versions: [1], ...more };
    fromHost.push(encodeFrame(epoch, 0, frameKinds.hello, Buffer.from(JSON.stringify(hello))));
    look(1);
  };
  return { channel, heard, greet, say };
}

describe('Channel.tell() while the host is away', () => {
  it('keeps events in order, up to a limit', () => {
    const { channel, heard, greet } = awaitHost();
    for (let n = 0; n < limits.maxQueuedEvents + 10; n += 1) channel.tell({ kind: 'log', level: 'info', text: `${n}` });
    greet();
    assert.equal(heard.length, limits.maxQueuedEvents);
    const last = heard.at(-1);
    assert.equal(last?.kind === 'log' ? String(last.text) : last, `${limits.maxQueuedEvents + 9}`);
  });

  it('never drops an exit, however many other events there are', () => {
    const { channel, heard, greet } = awaitHost();
    channel.tell(exited('first'));
    for (let n = 0; n < limits.maxQueuedEvents + 10; n += 1) channel.tell(killed);
    for (let n = 0; n < limits.maxQueuedEvents; n += 1) channel.tell(exited(`c${n}`));
    greet();
    assert.equal(heard.filter(({ kind }) => kind === 'exited').length, limits.maxQueuedEvents + 1);
    assert.deepEqual(heard[0], exited('first'));
  });

  it('keeps the last termination message of each container', () => {
    const { channel, heard, greet } = awaitHost();
    channel.tell(said('a', 'MQ=='));
    channel.tell(said('b', 'Mg=='));
    for (let n = 0; n < limits.maxQueuedEvents + 10; n += 1) channel.tell(said('a', 'Mw=='));
    channel.tell(exited('a'));
    greet();
    assert.deepEqual(heard, [said('b', 'Mg=='), said('a', 'Mw=='), exited('a')]);
  });
});

it('Channel.write() does not try again at once what a port takes nothing of', () => {
  let tries = 0;
  const { channel } = awaitHost(undefined, () => {
    tries += 1;
    if (tries > 9) throw new Error('again and again');
    return 0;
  });
  channel.write(new Uint8Array(100), 100);
  assert.deepEqual([tries, channel.isIdle], [1, false]);
});

describe('the size of a data frame', () => {
  it('is what the host takes, within limits; an earlier host does not say it', () => {
    const { channel, greet } = awaitHost();
    const sendable = (id: number) => channel.openStream(id).sendable;
    greet();
    assert.equal(sendable(1), limits.maxDataBytes);
    greet({ maxDataBytes: 20_000 });
    assert.equal(sendable(2), 20_000);
    greet({ maxDataBytes: 1_000_000 });
    assert.equal(sendable(3), limits.maxOutputBytes);
  });

  it('is not that of the last bytes of a window', () => {
    const sent: number[] = [];
    const stream: AgentStream = new AgentStream(1, {
      ...{ epoch, isCongested: false, maxDataBytes: limits.maxOutputBytes, forget: () => {} },
      write: (_frame, length) => void sent.push(length),
    });
    const buffer = new Uint8Array(headerBytes + limits.maxOutputBytes);
    while (stream.sendable > 0) stream.send(buffer, stream.sendable);
    assert.deepEqual(sent, [buffer.length, buffer.length]); // 40 bytes are left
    stream.granted(limits.streamWindowBytes / 2);
    assert.equal(stream.sendable, limits.maxOutputBytes);
  });
});

describe('a call in parts', () => {
  const callOf = (id: number, params: unknown) =>
    Buffer.from(JSON.stringify({ t: 'call', id, method: 'ping', params }));

  it('is assembled for any splitting, and the next one is separate', () => {
    const calls: CallMessage[] = [];
    const { greet, say } = awaitHost((call) => calls.push(call));
    greet();
    const text = 'ü'.repeat(limits.maxMessageBytes);
    const whole = callOf(1, text);
    for (const cut of [40_001, 65_536, limits.maxMessageBytes]) {
      let at = 0;
      for (; whole.length - at > limits.maxMessageBytes; at += cut) say(frameKinds.part, whole.subarray(at, at + cut));
      say(frameKinds.message, whole.subarray(at));
      say(frameKinds.message, callOf(2, 'next'));
      assert.deepEqual(
        calls.splice(0).map(({ params }) => params),
        [text, 'next'],
      );
    }
  });

  it('above the limit, or whose connection has ended, is skipped and freed', () => {
    const calls: CallMessage[] = [];
    const { greet, say } = awaitHost((call) => calls.push(call));
    greet();
    const part = Buffer.alloc(limits.maxMessageBytes, ' ');
    const whole = callOf(1, 'x');
    for (let bytes = 0; bytes <= limits.maxCallBytes; bytes += part.length) say(frameKinds.part, part);
    say(frameKinds.message, Buffer.from('x}'));
    assert.deepEqual(calls, []);
    say(frameKinds.message, whole);
    assert.equal(calls.length, 1);
    say(frameKinds.part, Buffer.from('{"t":'));
    say(frameKinds.message, whole);
    say(frameKinds.message, whole);
    assert.equal(calls.length, 2);
  });
});
