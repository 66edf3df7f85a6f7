import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { poll } from '#host/wait.ts';
import { encodeFrame, type FrameKind } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { connectLink } from './connect-link.ts';
import type { Link, LinkStream } from './link.ts';
import { FakeAgent } from './testing/fake-agent.ts';
import { propertyRuns } from '../../test/property-runs.ts';

/** Number of runs; for a long run set `PODVM_FUZZ_RUNS=100000`. */
const runs = Number(process.env['PODVM_FUZZ_RUNS'] ?? propertyRuns(2000));
/** Conversations over one link, which then ends in any state. */
const runsPerLink = 50;
const never = new AbortController().signal;

const settled = async () => {
  for (let turn = 0; turn < 5; turn += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
};

/** Frames of a hostile guest. They are nearly valid, since the parser refuses all others. */
const stream = fc.oneof(fc.nat(12), fc.constantFrom(0x7fff_ffff, 0xffff_ffff));
const event = fc.oneof(
  fc.jsonValue(),
  fc.record({
    kind: fc.constantFrom('exited', 'oomKilled', 'terminationMessage', 'log', 'welcome'),
    containerId: fc.oneof(fc.constantFrom('a', '..', '../b', ''), fc.string()),
    execId: fc.option(fc.string(), { nil: undefined }),
    exitCode: fc.oneof(fc.nat(255), fc.constantFrom(-1, 256, 1.5, 1e300)),
    signal: fc.option(fc.integer(), { nil: undefined }),
    oomKilled: fc.boolean(),
    finishedAtMs: fc.oneof(fc.double(), fc.constantFrom(1e300, -1)),
    level: fc.constantFrom('info', 'warn', 'loud'),
    text: fc.string(),
    data: fc.string(),
  }),
);
const message = fc.record({
  t: fc.constantFrom('welcome', 'result', 'error', 'event', 'hello', 'call', '__proto__'),
  id: fc.oneof(fc.nat(400), fc.jsonValue()),
  value: fc.jsonValue(),
  kind: fc.constantFrom('notFound', 'internal', 'none'),
  message: fc.string(),
  event,
});
const sent = fc.oneof(
  fc.record({
    is: fc.constant('frame' as const),
    stream,
    kind: fc.integer({ min: 0, max: 8 }),
    payload: fc.uint8Array({ maxLength: 40 }),
    isStale: fc.boolean(),
  }),
  fc.record({ is: fc.constant('message' as const), message }),
  fc.record({ is: fc.constant('bytes' as const), bytes: fc.uint8Array({ maxLength: 60 }) }),
  fc.record({
    is: fc.constant('damaged' as const),
    message,
    at: fc.nat(60),
    bit: fc.nat(7),
    cut: fc.option(fc.nat(60), { nil: undefined }),
  }),
);
/** The host's actions meanwhile. */
const done = fc.record({
  is: fc.constant('host' as const),
  what: fc.constantFrom('ping', 'dial', 'write', 'destroy', 'exec'),
});

class Conversation {
  readonly agent = new FakeAgent();
  readonly #link: Link;
  readonly #streams: LinkStream[] = [];
  readonly calls: Promise<unknown>[] = [];

  private constructor(agent: FakeAgent, link: Link) {
    this.agent = agent;
    this.#link = link;
    link.onEvent(() => undefined);
  }

  static async begin(): Promise<Conversation> {
    const agent = new FakeAgent();
    const open = () => Promise.resolve(agent.channel);
    return new Conversation(
      agent,
      await connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs: 60_000 }, never),
    );
  }

  say(what: (typeof sent extends fc.Arbitrary<infer T> ? T : never) | { is: 'host'; what: string }): void {
    const { agent } = this;
    switch (what.is) {
      case 'frame': {
        const epoch = what.isStale ? agent.epoch ^ 1 : agent.epoch;
        agent.raw(encodeFrame(epoch, what.stream, what.kind as FrameKind, what.payload)); // SAFE: includes unknown kinds
        return;
      }
      case 'message':
        agent.sendJson(what.message);
        return;
      case 'bytes':
        agent.raw(what.bytes);
        return;
      case 'damaged': {
        const frame = encodeFrame(agent.epoch, 0, 2, Buffer.from(JSON.stringify(what.message)));
        const at = what.at % frame.length;
        frame[at] = (frame[at] ?? 0) ^ (1 << what.bit);
        agent.raw(frame.subarray(0, what.cut));
        return;
      }
      case 'host':
        this.#act(what.what);
        return;
    }
  }

  #act(what: string): void {
    const call = (calling: Promise<unknown>) => void this.calls.push(calling.catch((error: unknown) => error));
    if (what === 'ping') call(this.#link.call('ping', {}, never));
    else if (what === 'exec') call(this.#link.call('startContainer', { id: 'a' }, never));
    else if (what === 'dial' && this.#streams.length < 8) {
      const opened = this.#link.openStream();
      opened.on('error', () => undefined);
      this.#streams.push(opened);
      call(this.#link.call('dial', { stream: opened.id, address: '::1', port: 1 }, never));
    } else if (what === 'write') this.#streams.at(-1)?.write('x'.repeat(100));
    else if (what === 'destroy') this.#streams.pop()?.destroy();
  }

  /** Checks that a valid guest is still understood afterwards, once the frame that it broke off is completed. */
  async assertAlive(): Promise<void> {
    this.agent.onCall = ({ id }) => this.agent.send({ t: 'result', id, value: { uptimeMs: 7 } });
    this.agent.raw(new Uint8Array(limits.maxMessageBytes));
    assert.deepEqual(await this.#link.call('ping', {}, never), { uptimeMs: 7 });
    this.agent.onCall = () => undefined;
  }

  async end(): Promise<void> {
    await this.#link[Symbol.asyncDispose]();
    await Promise.all(this.calls); // each settles, at the latest when the link ends
  }
}

test(`a hostile agent causes no exception and no hang in the host, in ${runs} conversations`, async () => {
  let conversation = await Conversation.begin();
  let count = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof({ weight: 3, arbitrary: sent }, done), { maxLength: 12 }), async (turns) => {
      for (const turn of turns) conversation.say(turn);
      await settled();
      count += 1;
      if (count % runsPerLink !== 0) return;
      await conversation.assertAlive();
      await conversation.end();
      conversation = await Conversation.begin();
    }),
    { numRuns: runs, endOnFailure: true },
  );
  await conversation.end();
  assert.ok(count >= runs);
});

/** Resolves once the link reads the channel. It looks by timers, since a loop of setImmediate would take the thread. */
const heard = (agent: FakeAgent) => poll(async () => (agent.channel.isPaused() ? undefined : true), { everyMs: 5 });

const linked = async () => {
  const agent = new FakeAgent();
  const open = () => Promise.resolve(agent.channel);
  const link = await connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs: 60_000 }, never);
  return { agent, link };
};

test('output sent byte by byte takes no more memory of the host than other output', async () => {
  const { agent, link } = await linked();
  await using _ = link;
  const reading = link.openStream();
  agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: {} });
  await link.call('dial', { stream: reading.id, address: '::1', port: 1 }, never);
  for (let sentBytes = 0; sentBytes < limits.streamWindowBytes; sentBytes += 1024) {
    for (let at = 0; at < 1024; at += 1) agent.data(reading.id, Buffer.from([at & 0xff]));
    await settled();
    await heard(agent); // it may wait for its turn on a busy host
  }
  agent.frame(reading.id, 4);
  const pieces = await Array.fromAsync(reading as AsyncIterable<Buffer>);
  assert.equal(Buffer.concat(pieces).length, limits.streamWindowBytes);
  assert.ok(pieces.length <= limits.streamWindowBytes / limits.maxDataBytes + 2, `${pieces.length} pieces`);
});

test('a guest that sends endlessly is read only at intervals, and does not block the host', async (context) => {
  const { agent, link } = await linked();
  await using _ = link;
  // On a busy host this process may get less time than a guest's part of it. So the guest's time passes here.
  let nowMs = performance.now();
  context.mock.method(performance, 'now', () => nowMs);
  const nonsense = {
    t: 'event',
    event: { kind: 'log', level: 'info', text: '"'.repeat(2000), more: 'x'.repeat(60_000) },
  };
  const deadline = AbortSignal.timeout(60_000);
  for (let pauses = 0; pauses < 3; await settled()) {
    deadline.throwIfAborted();
    for (let count = 0; count < 20 && !agent.channel.isPaused(); count += 1) agent.sendJson(nonsense);
    if (!agent.channel.isPaused()) continue;
    pauses += 1;
    nowMs += 1000;
    await heard(agent);
  }
  agent.onCall = ({ id }) => agent.send({ t: 'result', id, value: { uptimeMs: 7 } });
  assert.deepEqual(await link.call('ping', {}, never), { uptimeMs: 7 });
});
