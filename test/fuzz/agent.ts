import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { encodeCredit, encodeFrame, type FrameKind, frameKinds, headerBytes, writeHeader } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { type AgentBench, openAgentBench } from './agent-bench.ts';
import { type Damage, type Step, steps, stepsSchema, volumeNames } from './agent-steps.ts';
import type { ScriptedHost } from './scripted-host.ts';
import { whyNoServer } from './scripted-guest.ts';
import { type Bench, defineTarget } from './target.ts';

/** The agent under address and undefined-behaviour checks, with arbitrary input from its host. */
export const agent = defineTarget<readonly Step[]>({
  name: 'agent',
  whyNot: whyNoServer,
  runs: steps,
  schema: stepsSchema,
  runTimeoutMs: 60_000,
  open,
});

const runsOfAgent = 200;
/** Maximum heap of the engine after a run: the needs of the largest call, and what garbage collection has left. */
const maxHeapBytes = 12 * 1024 * 1024;
/** Descriptors of calls that wait ten seconds for a device, and the like. */
const sparseFds = 24;

async function open(): Promise<Bench<readonly Step[]>> {
  await using undo = new AsyncDisposableStack();
  const bench = undo.use(await openAgentBench());
  let fuzzed = await FuzzedAgent.start(bench);
  let given = 0;
  const owned = undo.move();
  return {
    async give(run) {
      given += 1;
      try {
        if (given % runsOfAgent === 0) {
          await fuzzed.host.leave();
          fuzzed = await FuzzedAgent.start(bench);
        }
        if (!(await fuzzed.hear(run))) fuzzed = await FuzzedAgent.start(bench);
      } catch (error) {
        await fuzzed.host.leave().catch(() => undefined); // the first error is thrown below
        fuzzed = await FuzzedAgent.start(bench);
        throw error;
      }
    },
    finish: () => fuzzed.host.leave(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

class FuzzedAgent {
  readonly host: ScriptedHost;
  readonly #fds: number;
  #pushes: number[] = [];

  private constructor(host: ScriptedHost, fds: number) {
    this.host = host;
    this.#fds = fds;
  }

  static async start(bench: AgentBench): Promise<FuzzedAgent> {
    const host = await bench.start();
    return new FuzzedAgent(host, (await statsOf(host)).agentFds);
  }

  /** Sends all steps, and checks that the agent is unchanged. Returns false if it was asked to end, and has ended. */
  async hear(run: readonly Step[]): Promise<boolean> {
    for (const step of run) {
      await this.#say(step);
      if (this.host.hasEnded) break;
    }
    const isEnd = run.some((step) => step.do === 'call' && step.method === 'shutdown');
    if (isEnd && (await this.#hasEnded())) return false;
    this.host.check();
    await this.host.greet();
    for (const push of this.#pushes.splice(0)) await this.host.call('abortPush', { push });
    for (const name of volumeNames) await this.host.call('removeVolume', { name });
    const { agentFds, agentHeapBytes } = await statsOf(this.host);
    assert.ok(agentFds <= this.#fds + sparseFds, `${agentFds} descriptors, ${this.#fds} at first`);
    assert.ok(agentHeapBytes <= maxHeapBytes, `${agentHeapBytes} bytes of heap`);
    this.host.check();
    return true;
  }

  /** Returns whether a shutdown arrived and ended it properly. */
  async #hasEnded(): Promise<boolean> {
    this.host.read(true);
    const isEnd = await Promise.race([this.host.ended.then(() => true), delay(farewellMs, false)]);
    if (isEnd) assert.equal(this.host.exitCode, 0);
    return isEnd;
  }

  async #say(step: Step): Promise<void> {
    const { host } = this;
    switch (step.do) {
      case 'call': {
        const id = Math.max(1, (host.lastId += 1) + step.idShift);
        host.lastId = Math.max(host.lastId, id);
        const params = this.#known(step.params);
        const { frames, method, damage, waits } = step;
        const isPlain = isWhole(damage) && typeof method === 'string';
        host.isStrict &&= isPlain;
        host.expect(id, method, params);
        this.#frames(Buffer.from(JSON.stringify({ t: 'call', id, method, params }) ?? ''), frames, damage);
        if (waits && isPlain && step.idShift === 0 && !mayWait.has(method)) await this.#answer(id, method);
        return;
      }
      case 'frame': {
        host.isStrict &&= isPlainFrame(step);
        const { stream, bytes, kind, epochShift, lengthShift } = step;
        const frame = new Uint8Array(headerBytes + bytes).fill(0x62, headerBytes);
        const length = Math.max(0, bytes + lengthShift);
        writeHeader(frame, 0, { epoch: host.epoch + epochShift, stream, kind: kind as FrameKind, length }); // SAFE: a lie
        if (kind === frameKinds.data) host.sent(stream, bytes * step.times);
        for (let time = 0; time < step.times; time += 1) this.#send(frame, step.damage);
        return;
      }
      case 'text':
        host.isStrict = false;
        for (let time = 0; time < step.times; time += 1) {
          const payload = Buffer.from(step.text).subarray(0, limits.maxMessageBytes);
          this.#send(encodeFrame(host.epoch, 0, step.kind as FrameKind, payload), step.damage); // SAFE: a kind of text
        }
        return;
      case 'credit':
        host.isStrict &&= isWhole(step.damage);
        host.granted(step.stream, step.bytes);
        this.#send(encodeCredit(host.epoch, step.stream, step.bytes), step.damage);
        return;
      case 'hello': {
        host.isStrict = false;
        if (step.isNew) host.newEpoch();
        const hello = Buffer.from(JSON.stringify({ t: 'hello', versions: step.versions }));
        this.#send(encodeFrame(host.epoch, 0, frameKinds.hello, hello), step.damage);
        return;
      }
      case 'bytes':
        host.isStrict = false;
        host.send(Buffer.from(step.hex, 'hex'));
        return;
      case 'read':
        host.read(step.on);
    }
  }

  async #answer(id: number, method: string): Promise<void> {
    this.host.read(true);
    const answer = await this.host.answerTo(id);
    if (method !== 'beginPush' || answer?.t !== 'result') return;
    this.#pushes.push((answer.value as { push: number }).push); // SAFE: the host has checked results
  }

  /** Finds a push by its position among the existing ones. */
  #known(params: unknown): unknown {
    if (typeof params !== 'object' || params === null || !('push' in params)) return params;
    const { push } = params;
    return { ...params, push: typeof push === 'number' ? (this.#pushes[push % this.#pushes.length] ?? push) : push };
  }

  #frames(body: Buffer, count: number, damage: Damage): void {
    const size = Math.min(limits.maxMessageBytes, Math.max(1, Math.ceil(body.length / count)));
    for (let at = 0; at < body.length; at += size) {
      const kind = at + size < body.length ? frameKinds.part : frameKinds.message;
      this.#send(encodeFrame(this.host.epoch, 0, kind, body.subarray(at, at + size)), damage);
    }
  }

  #send(frame: Uint8Array, { changes, cut }: Damage): void {
    for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
    this.host.send(cut < 0 ? Buffer.concat([frame, Buffer.alloc(-cut)]) : frame.subarray(0, frame.length - cut));
  }
}

/** A shutdown's longest grace time, and what the agent takes to go. */
const farewellMs = 1000;

/** Devices that do not come, and connections that nothing answers. */
const mayWait = new Set(['attachDisk', 'growDisk', 'createVolume', 'createContainer', 'shutdown', 'detachDisk']);

/** Bytes of a stream as the protocol has them, though perhaps more than were granted. */
const isPlainFrame = ({ kind, bytes, lengthShift, epochShift, damage }: Step & { do: 'frame' }) =>
  isWhole(damage) &&
  lengthShift === 0 &&
  epochShift === 0 &&
  (kind === frameKinds.data ? bytes <= limits.maxDataBytes : isEnd(kind) && bytes === 0);
const isEnd = (kind: number) => kind === frameKinds.end || kind === frameKinds.reset;
const isWhole = ({ changes, cut }: Damage) => changes.length === 0 && cut === 0;

async function statsOf(host: ScriptedHost) {
  const answer = await host.call('stats', {});
  assert.ok(answer?.t === 'result', `stats: ${JSON.stringify(answer)}`);
  return answer.value as { agentFds: number; agentHeapBytes: number }; // SAFE: the host has checked results
}
