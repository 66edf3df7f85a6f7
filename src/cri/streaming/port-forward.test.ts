import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { Awaited as Changes, StreamingClient } from '../testing/streaming-client.ts';
import { ClientTunnel } from '../testing/client-tunnel.ts';
import { defaultStreamingSettings, serveStreaming } from './server.ts';
import { reset } from './spdy/spdy-error.ts';
import { types } from './spdy/frame.ts';
import { numbers } from './spdy/frame-encoder.ts';
import type { PortForwardStreamRequest, StreamingServer } from './streaming.ts';
import { maxForwardedPorts } from './websocket-port-forward.ts';

/** Handler of the pod's only service, which this test plays on a real socket. */
let serve: (socket: Socket) => void;
const sockets = new Set<Socket>();
const awaited = new Changes();
const service = createServer({ allowHalfOpen: true }, (socket) => {
  sockets.add(socket.on('error', () => {}));
  socket.once('close', () => {
    sockets.delete(socket);
    awaited.changed();
  });
  serve(socket);
});
let server: StreamingServer;
const dialled: number[] = [];
const target: PortForwardStreamRequest['target'] = {
  async dial(port, address, signal) {
    dialled.push(port);
    assert.equal(address, undefined);
    if (port === 9) throw new PodvmError('unavailable', 'Cannot connect to port 9 in the guest: ECONNREFUSED');
    if (port === 10) {
      await once(signal, 'abort');
      throw new PodvmError('cancelled', 'Cannot connect to port 10: cancelled');
    }
    // SAFE: a server that listens on TCP has such an address.
    const socket = connect({ port: (service.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true });
    await once(socket, 'connect');
    return socket;
  },
};

beforeEach(async () => {
  service.listen(0, '127.0.0.1');
  await once(service, 'listening');
  server = await serveStreaming(defaultStreamingSettings, { clock: systemClock, log: silentLog });
  dialled.length = 0;
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await awaited.until('every connection to be gone', () => sockets.size === 0);
  service.close();
  await once(service, 'close');
});

const connectClient = () => StreamingClient.connect(server.portForwardUrl({ target, ports: [] }), 'portforward.k8s.io');

async function pair(client: StreamingClient, port: number, requestid: string) {
  const headers = { port: String(port), requestid };
  return {
    error: await client.open({ streamtype: 'error', ...headers }),
    data: await client.open({ streamtype: 'data', ...headers }),
  };
}

/** Sends hello, and ends when its peer does. */
function greet(socket: Socket): void {
  socket.write('hello');
  socket.resume().once('end', () => socket.end());
}

/** Reads all input, then answers with it in capitals. */
function shout(socket: Socket): void {
  let heard = '';
  socket.on('data', (chunk) => (heard += chunk.toString()));
  socket.once('end', () => socket.end(heard.toUpperCase()));
}

test('a connection carries bytes and ends in both directions', async () => {
  serve = shout;
  await using client = await connectClient();
  const { error, data } = await pair(client, 8080, '0');
  client.end(error);
  client.data(data, 'is anybody ');
  client.data(data, 'there?', true);
  assert.equal(await client.ended(data), 'IS ANYBODY THERE?');
  assert.equal(await client.ended(error), '');
  assert.deepEqual(dialled, [8080]);
});

test('many connections work concurrently, and end separately', async () => {
  serve = shout;
  await using client = await connectClient();
  const pairs: Awaited<ReturnType<typeof pair>>[] = [];
  for (let at = 0; at < 20; at += 1) pairs.push(await pair(client, 8000 + at, String(at)));
  for (const [at, { data }] of pairs.entries()) client.data(data, `connection ${at}`);
  for (const { data } of pairs.toReversed()) client.end(data);
  for (const [at, { data }] of pairs.entries()) assert.equal(await client.ended(data), `CONNECTION ${at}`);
});

test('a refused connection is reported on the error stream, and reset', async () => {
  await using client = await connectClient();
  const { error, data } = await pair(client, 9, '0');
  assert.equal(await client.ended(error), 'Cannot forward port 9: Cannot connect to port 9 in the guest: ECONNREFUSED');
  assert.deepEqual((await client.frame(types.rstStream, data)).payload, numbers(data, reset.cancel));
});

test('a broken connection is reported on the error stream', async () => {
  serve = (socket) => socket.once('data', () => socket.resetAndDestroy());
  await using client = await connectClient();
  const { error, data } = await pair(client, 8080, '0');
  client.data(data, 'go');
  assert.match(await client.ended(error), /^Cannot forward port 8080: .*ECONNRESET/);
});

test('a client that resets its stream, or disconnects, ends the connection in the pod', async () => {
  serve = greet;
  await using client = await connectClient();
  const first = await pair(client, 8080, '0');
  const second = await pair(client, 8080, '1');
  await client.receives(second.data, 'hello');
  assert.equal(sockets.size, 2);
  client.reset(first.data);
  await awaited.until('the end of one connection', () => sockets.size === 1);
  client.transport.destroy();
  await awaited.until('the end of the other', () => sockets.size === 0);
});

test('a client that disconnects during a dial cancels it', async () => {
  const client = await connectClient();
  await pair(client, 10, '0');
  client.transport.destroy();
  await server[Symbol.asyncDispose]();
});

test('streams without a port, with a wrong one, or of an unknown type are refused, one by one', async () => {
  serve = shout;
  await using client = await connectClient();
  const wrong = [
    { streamtype: 'data' },
    { streamtype: 'data', port: '0' },
    { streamtype: 'data', port: '65536' },
    { streamtype: 'data', port: '80x' },
    { streamtype: 'stdin', port: '80' },
    { port: '80' },
  ];
  for (const headers of wrong) {
    const streamId = await client.synStream(headers);
    assert.deepEqual((await client.frame(types.rstStream, streamId)).payload, numbers(streamId, reset.refused));
  }
  const { data } = await pair(client, 8080, '0');
  client.data(data, 'ok', true);
  assert.equal(await client.ended(data), 'OK');
});

test('a second data stream of one request is reset, and the first continues', async () => {
  serve = shout;
  await using client = await connectClient();
  const data = await client.open({ streamtype: 'data', port: '80', requestid: '7' });
  const twin = await client.open({ streamtype: 'data', port: '80', requestid: '7' });
  await client.frame(types.rstStream, twin);
  await client.open({ streamtype: 'error', port: '80', requestid: '7' });
  client.data(data, 'one', true);
  assert.equal(await client.ended(data), 'ONE');
});

test('streams without request ids are paired by their numbers', async () => {
  serve = shout;
  await using client = await connectClient();
  await client.open({ streamtype: 'error', port: '80' });
  const data = await client.open({ streamtype: 'data', port: '80' });
  client.data(data, 'old client', true);
  assert.equal(await client.ended(data), 'OLD CLIENT');
});

test('half a pair is reset after a time limit', async () => {
  await using impatient = await serveStreaming(
    { ...defaultStreamingSettings, openMs: 50 },
    { clock: systemClock, log: silentLog },
  );
  await using client = await StreamingClient.connect(
    impatient.portForwardUrl({ target, ports: [] }),
    'portforward.k8s.io',
  );
  const data = await client.open({ streamtype: 'data', port: '80', requestid: '1' });
  await client.frame(types.rstStream, data);
  assert.deepEqual(dialled, []);
});

const tunnelled = () =>
  ClientTunnel.connect(server.portForwardUrl({ target, ports: [] }), 'SPDY/3.1+portforward.k8s.io');

test('port-forward works through the messages of a WebSocket', async () => {
  serve = shout;
  await using client = new StreamingClient(await tunnelled());
  const { error, data } = await pair(client, 8080, '0');
  client.data(data, 'a'.repeat(300_000), true);
  assert.equal(await client.ended(data), 'A'.repeat(300_000));
  assert.equal(await client.ended(error), '');
  client.transport.end();
  await client.closed();
});

test('a tunnel client that disconnects ends its connections', async () => {
  serve = greet;
  const client = new StreamingClient(await tunnelled());
  const { data } = await pair(client, 8080, '0');
  await client.receives(data, 'hello');
  client.transport.destroy();
  await awaited.until('the end of the connection', () => sockets.size === 0);
});

/**
 * A client of the protocols whose request names the ports. `text()`: the text received on a channel, after the port.
 */
async function channels(ports: readonly number[], protocol: string) {
  const url = server.portForwardUrl({ target, ports }).replace('http:', 'ws:');
  const socket = new WebSocket(url, protocol === '' ? [] : protocol);
  const isBase64 = protocol.includes('base64');
  const received = new Map<number, Buffer[]>();
  let isClosed = false;
  socket.on('message', (data) => {
    const message = data as Buffer; // SAFE: `ws` returns Buffers by default
    const [channel = -1, ...rest] = message;
    const bytes = isBase64 ? Buffer.from(message.toString('latin1').slice(1), 'base64') : Buffer.from(rest);
    const number = isBase64 ? channel - 48 : channel;
    received.set(number, [...(received.get(number) ?? []), bytes]);
    awaited.changed();
  });
  socket.once('close', () => {
    isClosed = true;
    awaited.changed();
  });
  await once(socket, 'open');
  return {
    socket,
    portOf: (channel: number) => received.get(channel)?.[0]?.readUInt16LE(),
    text: (channel: number) => Buffer.concat(received.get(channel)?.slice(1) ?? []).toString(),
    send: (channel: number, text: string) =>
      socket.send(isBase64 ? `${channel}${btoa(text)}` : Buffer.concat([Buffer.of(channel), Buffer.from(text)])),
    closed: () => awaited.until('the end of the session', () => isClosed),
  };
}

for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io', '']) {
  test(`${protocol || 'a client without a protocol'} forwards the ports of the request, with a reason for one that fails`, async () => {
    serve = (socket) => socket.once('data', (asked: Buffer) => socket.end(`${asked.toString()} yourself`));
    const client = await channels([8080, 9], protocol);
    assert.equal(client.socket.protocol, protocol);
    await awaited.until('the ports', () => [0, 1, 2, 3].every((channel) => client.portOf(channel) !== undefined));
    assert.deepEqual([0, 1, 2, 3].map(client.portOf), [8080, 8080, 9, 9]);
    await awaited.until('the reason', () => client.text(3).includes('Cannot forward port 9'));
    client.send(0, 'hello');
    await client.closed(); // once all connections have ended
    assert.equal(client.text(0), 'hello yourself');
    assert.equal(client.text(1), '');
  });
}

test('a WebSocket client that disconnects ends its connections', async () => {
  serve = greet;
  const client = await channels([8080, 8081], 'v4.channel.k8s.io');
  await awaited.until('both connections', () => client.text(0) === 'hello' && client.text(2) === 'hello');
  client.socket.terminate();
  await awaited.until('the end of the connections', () => sockets.size === 0);
});

test('ports are required where the protocol cannot name them, are few, and are ports', async () => {
  const many = Array.from({ length: maxForwardedPorts + 1 }, (_, at) => at + 1);
  for (const ports of [[], many]) {
    const refused = new WebSocket(
      server.portForwardUrl({ target, ports }).replace('http:', 'ws:'),
      'v4.channel.k8s.io',
    );
    const [error] = (await once(refused, 'error')) as [Error];
    assert.match(error.message, /400/);
  }
  for (const port of [0, -1, 65_536]) {
    assert.throws(() => server.portForwardUrl({ target, ports: [port] }), { kind: 'invalid' });
  }
});
