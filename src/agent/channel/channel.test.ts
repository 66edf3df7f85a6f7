import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encodeFrame, frameKinds, FrameParser } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { agentMessageSchema, type AgentEvent } from '#wire/messages.ts';
import * as v from 'valibot';
import { again } from '#engine/engine.ts';
import { Channel, type ChannelParts } from './channel.ts';

const epoch = 7;
const exited = (containerId: string): AgentEvent => ({
  kind: 'exited',
  containerId,
  exitCode: 0,
  oomKilled: false,
  finishedAtMs: 1,
});
const said = (containerId: string, data: string): AgentEvent => ({ kind: 'terminationMessage', containerId, data });
const killed: AgentEvent = { kind: 'oomKilled', containerId: 'c' };

/** A channel to a host that has said nothing yet. */
function awaitHost() {
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
    setTimer: unused,
    watch: (_fd, _interest, handler) => void (look = handler),
    unwatch: () => {},
    read: (_fd, into) => {
      const bytes = fromHost.shift();
      if (bytes === undefined) return again;
      into.set(bytes);
      return bytes.length;
    },
    write: (_fd, bytes, offset = 0, length = bytes.length) => {
      parser.push(bytes.slice(offset, length));
      return length - offset;
    },
    encodeUtf8: (text) => Buffer.from(text),
    decodeUtf8: (bytes) => Buffer.from(bytes).toString(),
  };
  const channel = new Channel(parts, 3, {
    hello: () => ({ t: 'welcome', version: 1, agentVersion: '', engine: '', phases: [], configured: false }),
    call: unused,
    ended: unused,
  });
  const greet = () => {
    fromHost.push(encodeFrame(epoch, 0, frameKinds.hello, Buffer.from('{"t":"hello","versions":[1]}')));
    look(1);
  };
  return { channel, heard, greet };
}

describe('Channel.tell() while the host is away', () => {
  it('keeps events in order, and not too many', () => {
    const { channel, heard, greet } = awaitHost();
    for (let n = 0; n < limits.maxQueuedEvents + 10; n += 1) channel.tell({ kind: 'log', level: 'info', text: `${n}` });
    greet();
    assert.equal(heard.length, limits.maxQueuedEvents);
    assert.deepEqual(heard.at(-1), { kind: 'log', level: 'info', text: `${limits.maxQueuedEvents + 9}` });
  });

  it('never drops an exit, whatever else there is to tell', () => {
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
