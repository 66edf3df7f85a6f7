import assert from 'node:assert/strict';
import { duplexPair, type Duplex } from 'node:stream';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { kindOf, PodvmError, type ErrorKind } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { QmpClient, qmpLimits, type QmpEvent } from './qmp.ts';

const soon = () => AbortSignal.timeout(60_000);
const lastWords = ['qemu: it hurts', 'qemu: goodbye'].map(guestText);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

interface Command {
  readonly execute: string;
  readonly arguments: unknown;
  readonly id: number;
}

/** The other end of the channel. By default it sends an empty answer to each command. */
class Peer {
  readonly stream: Duplex;
  readonly events: QmpEvent[] = [];
  readonly commands: Command[] = [];
  answer: (command: Command) => void = ({ id }) => this.say({ return: {}, id });
  readonly #clientEnd: Duplex;
  #text = '';

  constructor() {
    [this.#clientEnd, this.stream] = duplexPair();
    this.stream.on('error', () => undefined);
    this.stream.on('data', (bytes: Buffer) => {
      const lines = (this.#text + bytes.toString()).split('\n');
      this.#text = lines.pop() ?? '';
      for (const line of lines) {
        const command = JSON.parse(line) as Command; // SAFE: the client under test wrote it; a wrong one fails the test
        this.commands.push(command);
        this.answer(command);
      }
    });
  }

  say(message: unknown): void {
    this.stream.write(`${JSON.stringify(message)}\r\n`);
  }

  greet(): void {
    this.say({ QMP: { version: { qemu: { major: 10 } }, capabilities: [] } });
  }

  open(signal = soon()): Promise<QmpClient> {
    const onEvent = (event: QmpEvent) => void this.events.push(event);
    return QmpClient.open(this.#clientEnd, { onEvent, tail: async () => lastWords }, signal);
  }

  static async opened(): Promise<{ readonly peer: Peer; readonly client: QmpClient }> {
    const peer = new Peer();
    peer.greet();
    return { peer, client: await peer.open() };
  }
}

describe('QmpClient.open()', () => {
  test('refuses a peer without QMP’s greeting', async () => {
    for (const said of ['SSH-2.0-OpenSSH\n', '[]\n', '"QMP"\n', '{"QMP":1}\n', '{}\n', '\u0000\u0001\n']) {
      const peer = new Peer();
      peer.stream.write(said);
      await assert.rejects(peer.open(), kind('corrupt'), said);
    }
  });

  test('ends when the peer closes, and when the caller cancels', async () => {
    const gone = new Peer();
    gone.stream.end();
    await assert.rejects(gone.open(), kind('unavailable'));
    const stop = new AbortController();
    const opening = new Peer().open(stop.signal);
    stop.abort();
    await assert.rejects(opening, kind('cancelled'));
    await assert.rejects(new Peer().open(AbortSignal.abort()), kind('cancelled'));
  });

  test('negotiates before anything else', async () => {
    const { peer } = await Peer.opened();
    assert.deepEqual(
      peer.commands.map(({ execute }) => execute),
      ['qmp_capabilities'],
    );
  });
});

describe('QmpClient.execute()', () => {
  test("throws QEMU's escaped message for a refused command", async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = ({ id }) => peer.say({ error: { class: 'GenericError', desc: 'no such\u001b[31m disk' }, id });
    await assert.rejects(client.execute('device_del', { id: 'x' }, soon()), (error) => {
      kind('internal')(error);
      assert.match(String(error), /Cannot run QMP device_del: no such\\u001b\[31m disk/);
      return true;
    });
    assert.deepEqual(peer.commands[1]?.arguments, { id: 'x' });
  });

  test('gives each call its own answer in any order, with events in between', async () => {
    const { peer, client } = await Peer.opened();
    const waiting: number[] = [];
    peer.answer = ({ id }) => {
      waiting.push(id);
      if (waiting.length < 3) return;
      for (const each of waiting.toReversed()) {
        peer.say({ event: 'BALLOON', timestamp: { seconds: 1 }, data: { actual: each } });
        peer.say({ return: { late: true }, id: 99_999 });
        peer.say({ return: { was: each }, id: each });
        peer.say({ return: { again: true }, id: each });
      }
    };
    const answers = await Promise.all(['a', 'b', 'c'].map((name) => client.execute(name, {}, soon())));
    assert.deepEqual(
      answers,
      waiting.map((was) => ({ was })),
    );
    assert.deepEqual(
      peer.events.map(({ event }) => event),
      ['BALLOON', 'BALLOON', 'BALLOON'],
    );
  });

  test('rejects every pending call when QEMU ends, with the last lines of its log', async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = ({ execute }) => execute === 'c' && peer.stream.destroy();
    const calls = await Promise.allSettled(['a', 'b', 'c'].map((name) => client.execute(name, {}, soon())));
    calls.push(...(await Promise.allSettled([client.execute('later', {}, soon())])));
    assert.equal(calls.length, 4);
    for (const call of calls) {
      assert.equal(call.status, 'rejected');
      assert.ok(call.reason instanceof PodvmError);
      assert.equal(call.reason.kind, 'unavailable');
      assert.deepEqual(call.reason.tail.map(String), lastWords.map(String));
    }
  });

  test('ends only the call that is cancelled', async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = ({ execute, id }) => execute !== 'slow' && peer.say({ return: id, id });
    const stop = new AbortController();
    const slow = client.execute('slow', {}, stop.signal);
    stop.abort();
    await assert.rejects(slow, kind('cancelled'));
    await assert.rejects(client.execute('never sent', {}, AbortSignal.abort()), kind('cancelled'));
    assert.equal(await client.execute('quick', {}, soon()), 4);
    assert.ok(peer.commands.every(({ execute }) => execute !== 'never sent'));
  });

  test('limits the number of pending calls', async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = () => undefined;
    const calls = Array.from({ length: qmpLimits.maxPendingCalls }, () => client.execute('x', {}, soon()));
    await assert.rejects(client.execute('one more', {}, soon()), kind('exhausted'));
    client.close();
    for (const { status } of await Promise.allSettled(calls)) assert.equal(status, 'rejected');
  });

  test('answered and cancelled calls no longer count as pending', async () => {
    const { peer, client } = await Peer.opened();
    for (let call = 0; call <= qmpLimits.maxPendingCalls; call += 1) await client.execute('x', {}, soon());
    peer.answer = () => undefined;
    for (let call = 0; call <= qmpLimits.maxPendingCalls; call += 1) {
      await assert.rejects(client.execute('x', {}, AbortSignal.abort()), kind('cancelled'));
    }
  });

  test('ends the connection at a line above the limit, whole or in pieces', async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = () => undefined;
    const call = assert.rejects(client.execute('x', {}, soon()), kind('corrupt'));
    const piece = Buffer.alloc(64 * 1024, 'x');
    for (let sent = 0; sent <= qmpLimits.maxMessageBytes; sent += piece.length) peer.stream.write(piece);
    await call;
    kind('corrupt')(await client.closed);
  });

  test('accepts messages that are split anywhere', async () => {
    const { peer, client } = await Peer.opened();
    peer.answer = ({ id }) => {
      for (const byte of Buffer.from(`${JSON.stringify({ return: 'grüße', id })}\n`))
        peer.stream.write(Buffer.of(byte));
    };
    assert.equal(await client.execute('x', {}, soon()), 'grüße');
  });
});

test('random bytes of a peer cause no stray exception, no hang and no answer to a call that was not made', async () => {
  const json = fc.oneof(
    fc.json(),
    fc.record({ return: fc.jsonValue(), id: fc.oneof(fc.integer(), fc.string()) }).map((each) => JSON.stringify(each)),
    fc.record({ event: fc.string(), data: fc.jsonValue() }).map((each) => JSON.stringify(each)),
    fc.record({ error: fc.jsonValue(), id: fc.integer() }).map((each) => JSON.stringify(each)),
  );
  const noise = fc.oneof(
    json.map((line) => Buffer.from(`${line}\n`)),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(noise, { maxLength: 20 }), async (chunks) => {
      const { peer, client } = await Peer.opened();
      peer.answer = ({ id }) => {
        for (const chunk of chunks) peer.stream.write(chunk);
        peer.stream.write('\n');
        peer.say({ return: 'mine', id });
        peer.stream.end();
      };
      const outcome = await client.execute('x', {}, soon()).catch((error: unknown) => error);
      assert.ok(outcome instanceof PodvmError || outcome === 'mine' || claims(chunks, 2), String(outcome));
      assert.ok((await client.closed) instanceof Error);
    }),
    { numRuns: 200 },
  );
});

/** Returns whether random bytes happen to be an answer to the one pending call. */
function claims(chunks: readonly Buffer[], id: number): boolean {
  return Buffer.concat(chunks).toString().includes(`"id":${id}`);
}
