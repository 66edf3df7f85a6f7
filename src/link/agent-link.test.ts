import assert from 'node:assert/strict';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { messageOf, PodvmError } from '#base/errors.ts';
import { asRequest } from '#host/log/request.ts';
import { encodeCredit, frameKinds } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import type { CallMessage } from '#wire/messages.ts';
import { connectLink } from './connect-link.ts';
import type { Link, LinkStream } from './link.ts';
import { FakeAgent } from './testing/fake-agent.ts';

const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;
const never = new AbortController().signal;

async function linked(callTimeoutMs = 5000): Promise<{ link: Link; agent: FakeAgent }> {
  const agent = new FakeAgent();
  const open = () => Promise.resolve(agent.channel);
  const link = await connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs }, never);
  return { link, agent };
}

/** A stream that the agent knows. */
async function dialled(link: Link, agent: FakeAgent): Promise<LinkStream> {
  const stream = link.openStream();
  agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: {} });
  await link.call('dial', { stream: stream.id, address: '127.0.0.1', port: 80 }, never);
  return stream;
}

/** Waits until everything in transit has been handled. */
const settled = async () => {
  for (let turn = 0; turn < 20; turn += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
};

describe('call()', () => {
  it('rejects with the agent’s kind of error and its escaped message', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    agent.onCall = ({ id }) => agent.send({ t: 'error', id, kind: 'notFound', message: 'no\u001b[31m such' });
    await assert.rejects(link.call('detachDisk', { serial: 'a' }, never), (error) => {
      assert.ok(kind('notFound')(error) && error instanceof Error);
      assert.equal(error.message, String.raw`no\u001b[31m such`);
      return true;
    });
  });

  it('adds the host’s fix to a refusal of the agent', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const message = 'Cannot run container: the image has no user web';
    agent.onCall = ({ id }) => agent.send({ t: 'error', id, kind: 'failedPrecondition', message });
    await assert.rejects(link.call('detachDisk', { serial: 'a' }, never), {
      message,
      fix: 'Set securityContext.runAsUser and runAsGroup to numbers.',
    });
  });

  it('tells the agent, and an error, of the client’s call that it is a part of; but not of probes and figures', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const told: (string | undefined)[] = [];
    agent.onCall = ({ id, request }) => {
      told.push(request);
      agent.send({ t: 'error', id, kind: 'notFound', message: 'no such disk' });
    };
    const detach = () => link.call('detachDisk', { serial: 'a' }, never).catch((error: unknown) => error);
    const fails = (): Promise<unknown> => asRequest('0af7651916cd43dd', detach);
    assert.equal(messageOf(await fails()), 'no such disk: in call detachDisk of request 0af7651916cd43dd');
    assert.equal(messageOf(await detach()), 'no such disk: in call detachDisk');
    await asRequest('0af7651916cd43dd', () => link.call('stats', {}, never).catch(() => undefined));
    assert.deepEqual(told, ['0af7651916cd43dd', undefined, undefined]);
  });

  it('rejects an answer that does not match the schema', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: { uptimeMs: 'soon' } });
    await assert.rejects(link.call('ping', {}, never), kind('corrupt'));
  });

  it('ends at its deadline when the agent does not answer, or answers another call', async () => {
    const { link, agent } = await linked(50);
    await using _ = link;
    agent.onCall = ({ id }) => agent.send({ t: 'result', id: id + 1, value: {} });
    await assert.rejects(link.call('detachDisk', { serial: 'a' }, never), kind('timeout'));
  });

  it('gives the agent the whole time again after it was frozen, and no more', async () => {
    const [{ link, agent }, other] = await Promise.all([linked(500), linked(500)]);
    await using _ = link;
    await using _other = other.link;
    const calls: CallMessage[] = [];
    agent.onCall = (call) => calls.push(call);
    const [answered, unanswered] = [1, 2].map(() => link.call('detachDisk', { serial: 'a' }, never)) as [
      Promise<unknown>,
      Promise<unknown>,
    ]; // SAFE: two calls
    unanswered.catch(() => undefined);
    link.setFrozen(true);
    await assert.rejects(other.link.call('detachDisk', { serial: 'a' }, never), kind('timeout')); // it began later
    link.setFrozen(false);
    agent.send({ t: 'result', id: calls[0]?.id ?? 0, value: {} });
    await answered;
    await assert.rejects(unanswered, kind('timeout'));
  });

  it('rejects for a caller that cancels, and ignores the late answer', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const calls: CallMessage[] = [];
    agent.onCall = (call) => calls.push(call);
    const controller = new AbortController();
    const calling = link.call('detachDisk', { serial: 'a' }, controller.signal);
    controller.abort();
    await assert.rejects(calling, kind('cancelled'));
    await settled();
    for (const { id } of calls) agent.send({ t: 'result', id, value: {} });
    agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: { uptimeMs: 5 } });
    assert.deepEqual(await link.call('ping', {}, never), { uptimeMs: 5 });
  });

  it('refuses more pending calls than the limit, and parameters above the limit', async () => {
    const { link } = await linked();
    const waiting = Array.from({ length: limits.maxPendingCalls }, () => link.call('ping', {}, never));
    const ended = Promise.allSettled(waiting);
    await assert.rejects(link.call('ping', {}, never), kind('exhausted'));
    await link[Symbol.asyncDispose]();
    assert.ok((await ended).every((outcome) => outcome.status === 'rejected' && kind('unavailable')(outcome.reason)));

    const other = await linked();
    await using _ = other.link;
    const big = 'a'.repeat(limits.maxCallBytes);
    await assert.rejects(other.link.call('removeVolume', { name: big }, never), kind('exhausted'));
  });

  it('sends parameters above the size of a message in parts, and nothing between them', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const calls: CallMessage[] = [];
    agent.onCall = (call) => {
      calls.push(call);
      agent.send({ t: 'result', id: call.id, value: {} });
    };
    const names = [1, limits.maxMessageBytes, 3 * limits.maxMessageBytes + 7].map((chars) => 'ü'.repeat(chars / 2));
    await Promise.all(names.map((name) => link.call('removeVolume', { name }, never)));
    assert.deepEqual(
      calls.map(({ params }) => (params as { name: string }).name),
      names,
    );
  });

  it('rejects pending and later calls with unavailable when the channel breaks', async () => {
    const { link, agent } = await linked();
    const calling = link.call('ping', {}, never);
    agent.tear();
    await assert.rejects(calling, kind('unavailable'));
    await assert.rejects(link.call('ping', {}, never), kind('unavailable'));
    assert.throws(() => link.openStream(), kind('unavailable'));
    assert.ok(kind('unavailable')(await link.closed));
  });
});

describe('a hostile agent', () => {
  it('causes no exception in the host by messages of any form', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    await fc.assert(
      fc.asyncProperty(
        fc.jsonValue(),
        fc.constantFrom('welcome', 'result', 'error', 'event', 'hello'),
        async (value, t) => {
          agent.sendJson(value);
          agent.sendJson({ t, id: value, event: value, value });
          await settled();
        },
      ),
      { numRuns: 50 },
    );
    agent.frame(0, frameKinds.message, Buffer.from('['.repeat(limits.maxMessageBytes)));
    agent.frame(0, frameKinds.message, Buffer.from([0xff, 0xfe, 0x00]));
    agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: { uptimeMs: 1 } });
    assert.deepEqual(await link.call('ping', {}, never), { uptimeMs: 1 });
  });

  it('cannot fill the host’s memory with events while there is no listener', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    for (let n = 0; n < limits.maxQueuedEvents + 100; n += 1) {
      agent.send({ t: 'event', event: { kind: 'log', level: 'info', text: String(n) } });
    }
    await settled();
    const seen: unknown[] = [];
    link.onEvent((event) => seen.push(event));
    assert.equal(seen.length, limits.maxQueuedEvents);
  });

  it('cannot send more on a stream than its credit', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const stream = await dialled(link, agent);
    const failed = once(stream, 'error');
    agent.data(stream.id, new Uint8Array(limits.streamWindowBytes + 1));
    const [error] = (await failed) as [unknown];
    assert.ok(kind('exhausted')(error));
    await settled();
    assert.equal(agent.framesOf(frameKinds.reset, stream.id).length, 1);
  });

  it('is told to forget a stream that the host does not know', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    agent.data(77, new Uint8Array(10));
    await settled();
    assert.equal(agent.framesOf(frameKinds.reset, 77).length, 1);
  });

  it('cannot make the host send more than the window by endless credit', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const stream = await dialled(link, agent);
    stream.on('error', () => {});
    for (let n = 0; n < 10; n += 1) agent.raw(encodeCredit(agent.epoch, stream.id, 0xffff_ffff));
    await settled();
    stream.write(new Uint8Array(4 * limits.streamWindowBytes));
    await settled();
    const sent = agent.framesOf(frameKinds.data, stream.id).reduce((sum, { payload }) => sum + payload.length, 0);
    assert.equal(sent, limits.streamWindowBytes);
  });
});

describe('openStream()', () => {
  it('refuses more open streams than the limit', async () => {
    const { link } = await linked();
    await using _ = link;
    for (let n = 0; n < limits.maxStreams; n += 1) link.openStream();
    assert.throws(() => link.openStream(), kind('exhausted'));
  });

  it('sends nothing before the agent has opened the stream, then no more than its credit', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const stream = link.openStream();
    stream.end(Buffer.alloc(limits.agentWindowBytes + 10, 'x'));
    await settled();
    const sent = () => agent.framesOf(frameKinds.data, stream.id).reduce((sum, { payload }) => sum + payload.length, 0);
    assert.equal(sent(), 0);
    agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: {} });
    await link.call('dial', { stream: stream.id, address: '::1', port: 80 }, never);
    await settled();
    assert.equal(sent(), limits.agentWindowBytes);
    agent.raw(encodeCredit(agent.epoch, stream.id, 10));
    await settled();
    assert.equal(sent(), limits.agentWindowBytes + 10);
    assert.equal(agent.framesOf(frameKinds.end, stream.id).length, 1);
  });

  it('grants credit only for what was read, so that a slow reader blocks the agent', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const stream = await dialled(link, agent);
    agent.data(stream.id, new Uint8Array(limits.streamWindowBytes));
    await settled();
    assert.deepEqual(agent.framesOf(frameKinds.credit, stream.id), []);
    agent.frame(stream.id, frameKinds.end);
    let bytes = 0;
    for await (const chunk of stream) bytes += (chunk as Buffer).length;
    assert.equal(bytes, limits.streamWindowBytes);
  });

  it('carries both directions, each with its own end', async () => {
    const { link, agent } = await linked();
    await using _ = link;
    const stream = await dialled(link, agent);
    stream.end('question');
    await settled();
    agent.data(stream.id, Buffer.from('answer'));
    agent.frame(stream.id, frameKinds.end);
    assert.equal(await text(stream), 'answer');
    assert.equal(String(agent.framesOf(frameKinds.data, stream.id)[0]?.payload), 'question');
    assert.deepEqual(agent.framesOf(frameKinds.reset, stream.id), []);
  });
});
