import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { kindOf, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { Task, type WaitRequest } from '../schema/generated/runtime/task/v2/shim_pb.ts';
import { RequestSchema } from '../schema/generated/ttrpc-request_pb.ts';
import { TtrpcClient } from './client.ts';
import { encodeFrame, frameTypes, maxPayloadBytes } from './frame.ts';
import { handlersOf, type Verbs } from './service.ts';
import { serveTtrpc } from './server.ts';

type TaskVerbs = Verbs<typeof Task>;

/** A server whose verbs refuse, apart from those that a test gives. */
async function serve(verbs: Partial<TaskVerbs>) {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-ttrpc-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const path = join(directory, 'shim.sock');
  const refuse = () => Promise.reject(new PodvmError('unsupported', 'not in this test'));
  const all = Object.fromEntries(Task.methods.map(({ localName }) => [localName, refuse]));
  // SAFE: each method has a verb
  const handlers = handlersOf(Task, { ...all, ...verbs } as TaskVerbs);
  const server = undo.use(await serveTtrpc(path, new Map([[Task.typeName, handlers]]), silentLog));
  const client = undo.use(new TtrpcClient(path));
  const owned = undo.move();
  return { path, client, server, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const soon = { ms: 60_000 };

test('serveTtrpc() answers calls in any order, with messages and with errors', async () => {
  const held = Promise.withResolvers<void>();
  await using served = await serve({
    wait: async () => {
      await held.promise;
      return { exitStatus: 7 };
    },
    state: ({ id }) => Promise.resolve({ id, pid: 12 }),
    kill: () => Promise.reject(new PodvmError('notFound', 'Cannot kill it: it has ended', { fix: 'Do nothing.' })),
  });
  const { client } = served;
  const waiting = client.call(Task.method.wait, { id: 'a' }, soon);
  const { id, pid } = await client.call(Task.method.state, { id: 'b' }, soon);
  assert.deepEqual([id, pid], ['b', 12]);
  await assert.rejects(client.call(Task.method.kill, { id: 'b' }, soon), {
    kind: 'notFound',
    message: 'Kill: Cannot kill it: it has ended. Do nothing.',
  });
  await assert.rejects(client.call(Task.method.pause, { id: 'b' }, soon), { kind: 'unsupported' });
  held.resolve();
  assert.equal((await waiting).exitStatus, 7);
  assert.equal((await stat(served.path)).mode & 0o777, 0o600);
});

test('serveTtrpc() ends a call at its deadline, and when its caller disconnects', async () => {
  const [late, lost] = [Promise.withResolvers<unknown>(), Promise.withResolvers<unknown>()];
  const called = Promise.withResolvers<void>();
  const wait = async ({ id }: WaitRequest, signal: AbortSignal) => {
    if (id === 'lost') called.resolve();
    if (!signal.aborted) await once(signal, 'abort');
    (id === 'late' ? late : lost).resolve(signal.reason);
    throw signal.reason;
  };
  await using served = await serve({ wait });
  const calling = served.client.call(Task.method.wait, { id: 'late' }, { ms: 20 });
  await assert.rejects(calling, (error) => kindOf(error) === 'timeout'); // the client's own, or the server's answer
  assert.equal(kindOf(await late.promise), 'timeout');
  const other = new TtrpcClient(served.path);
  const losing = other.call(Task.method.wait, { id: 'lost' }, soon);
  await called.promise;
  other[Symbol.dispose]();
  await assert.rejects(losing, { kind: 'unavailable' });
  assert.equal(kindOf(await lost.promise), 'cancelled');
});

test('serveTtrpc() disconnects a client of another protocol, and serves the next', async () => {
  await using served = await serve({ state: () => Promise.resolve({ pid: 3 }) });
  const tooLong = Buffer.alloc(10);
  tooLong.writeUInt32BE(maxPayloadBytes + 1);
  const request = toBinary(RequestSchema, create(RequestSchema, { service: 's', method: 'm' }));
  const data = encodeFrame({ streamId: 1, type: frameTypes.data, payload: request });
  for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), tooLong, data]) {
    const socket = connect(served.path);
    socket.on('error', () => undefined);
    socket.write(bytes);
    await once(socket, 'close');
  }
  assert.equal((await served.client.call(Task.method.state, {}, soon)).pid, 3);
});

test('serveTtrpc() refuses malformed requests and unknown methods', async () => {
  await using served = await serve({});
  const socket = connect(served.path);
  socket.write(encodeFrame({ streamId: 1, type: frameTypes.request, payload: Buffer.from([0xff, 0xff]) }));
  const [answer] = (await once(socket, 'data')) as [Buffer];
  assert.match(answer.toString('latin1'), /Cannot read a ttrpc request/);
  const unknown = create(RequestSchema, { service: Task.typeName, method: 'Explode' });
  socket.write(encodeFrame({ streamId: 3, type: frameTypes.request, payload: toBinary(RequestSchema, unknown) }));
  const [refusal] = (await once(socket, 'data')) as [Buffer];
  assert.match(refusal.toString('latin1'), /Cannot answer containerd\.task\.v2\.Task\/Explode/);
  socket.destroy();
});

test('serveTtrpc() refuses a socket that another process serves', async () => {
  await using served = await serve({});
  await assert.rejects(serveTtrpc(served.path, new Map(), silentLog), { kind: 'busy' });
});
