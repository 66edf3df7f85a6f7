import assert from 'node:assert/strict';
import { fakeVersions } from '#sandbox/testing/fake-parts.ts';
import { once } from 'node:events';
import { createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { test, type TestContext } from 'node:test';
import {
  Server as GrpcServer,
  ServerCredentials,
  status as grpcStatus,
  type sendUnaryData,
  type ServerUnaryCall,
} from '@grpc/grpc-js';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { check } from './check.ts';
import { grpcHealth } from './grpc-health.ts';

const never = new AbortController().signal;

/** Starts a real gRPC server whose services have these states; -1 is an unknown service. */
async function serveHealth(t: TestContext, states: Readonly<Record<string, number>>): Promise<number> {
  const server = new GrpcServer();
  const path = '/grpc.health.v1.Health/Check';
  const definition = {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: (bytes: Buffer) => bytes,
    requestDeserialize: (bytes: Buffer) => bytes,
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  };
  server.addService(
    { Check: definition },
    {
      Check: (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => {
        const reader = new BinaryReader(call.request);
        let service = '';
        while (reader.pos < reader.len) {
          reader.tag();
          service = reader.string();
        }
        const state = states[service];
        if (state === undefined) answer({ code: grpcStatus.NOT_FOUND, details: 'unknown service' });
        else answer(null, Buffer.from(new BinaryWriter().uint32(8).int32(state).finish()));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  t.after(() => server.forceShutdown());
  return port;
}

async function ask(port: number, service = '', signal = never) {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const closed = once(socket, 'close');
  try {
    return await grpcHealth(socket, { authority: `127.0.0.1:${port}`, service }, signal);
  } finally {
    await closed; // the server owns the connection
  }
}

async function listening(t: TestContext, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return (server.address() as AddressInfo).port; // SAFE: the server listens on TCP
}

test('grpcHealth() succeeds only on SERVING, for the server or one service', async (t) => {
  const port = await serveHealth(t, { '': 1, db: 2, new: 0 });
  assert.equal((await ask(port)).isSuccess, true);
  assert.deepEqual(await ask(port, 'db'), { isSuccess: false, message: 'gRPC probe: NOT_SERVING' });
  assert.deepEqual(await ask(port, 'new'), { isSuccess: false, message: 'gRPC probe: UNKNOWN' });
  const unknown = await ask(port, 'other');
  assert.equal(unknown.isSuccess, false);
  assert.match(unknown.message, /code 5: unknown service/);
});

test('grpcHealth() reports a gRPC server without the health service', async (t) => {
  const server = new GrpcServer();
  const port = await new Promise<number>((resolve) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_error, bound) => resolve(bound)),
  );
  t.after(() => server.forceShutdown());
  const { isSuccess, message } = await ask(port);
  assert.equal(isSuccess, false);
  assert.match(message, /does not implement grpc\.health\.v1\.Health/);
});

test('grpcHealth() rejects servers of other protocols in time', async (t) => {
  const closes = await listening(
    t,
    createServer((socket) => void socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n')),
  );
  await assert.rejects(ask(closes));
  const silent = await listening(
    t,
    createServer((socket) => void socket.on('error', () => {}).resume()),
  );
  await assert.rejects(ask(silent, '', AbortSignal.timeout(100)), { name: 'TimeoutError' });
  const endless = createHttp2Server().on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    const more = () => void (stream.write(Buffer.alloc(65_536)) && setImmediate(more));
    stream.on('drain', more);
    more();
  });
  await assert.rejects(ask(await listening(t, endless)), /more than 4096 bytes/);
  const plain = createHttp2Server((_request, response) => response.writeHead(404).end('no'));
  assert.match((await ask(await listening(t, plain))).message, /HTTP 404/);
});

test('check() connects to the address and port of the pod', async (t) => {
  const port = await serveHealth(t, { db: 1 });
  const dialled: unknown[] = [];
  const target: Parameters<typeof check>[1] = {
    container: { exec: () => Promise.reject(new Error('unused')) },
    ports: [],
    sandbox: {
      status: {
        id: '',
        state: 'ready',
        createdAt: new Date(),
        addresses: ['2001:db8::5/64'],
        parts: fakeVersions,
        phases: [],
        containers: [],
        volumes: [],
      },
      async dial(...to) {
        dialled.push(to.slice(0, 2));
        const socket = connect(port, '127.0.0.1');
        await once(socket, 'connect');
        return socket;
      },
    },
  };
  assert.equal((await check({ grpc: { port: 50_051, service: 'db' } }, target, never)).isSuccess, true);
  assert.equal((await check({ grpc: { port: 50_051, service: '' } }, target, never)).isSuccess, false);
  assert.deepEqual(dialled[0], [50_051, '2001:db8::5']);
});
