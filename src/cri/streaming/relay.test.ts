import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { ClientTunnel } from '../testing/client-tunnel.ts';
import { askUpgrade, spdyUpgrade, StreamingClient } from '../testing/streaming-client.ts';
import { defaultStreamingSettings, serveStreaming } from './server.ts';
import type { PortForwardStreamRequest, StreamingServer } from './streaming.ts';

/** The delegate's server is one of ours; what reaches it is checked here. */
let there: StreamingServer;
let server: StreamingServer;
const ports: number[] = [];
const target: PortForwardStreamRequest['target'] = {
  async dial(port) {
    ports.push(port);
    const { promise, resolve } = Promise.withResolvers<Socket>();
    const echo = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    const address = echo.address();
    assert.ok(address !== null && typeof address === 'object');
    const socket = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true }, () => resolve(socket));
    socket.once('close', () => echo.close());
    return await promise;
  },
};

beforeEach(async () => {
  ports.length = 0;
  there = await serveStreaming(defaultStreamingSettings, { clock: systemClock, log: silentLog });
  server = await serveStreaming(defaultStreamingSettings, { clock: systemClock, log: silentLog });
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await there[Symbol.asyncDispose]();
});

const relayed = (of: readonly number[] = []) =>
  server.relayedPortForwardUrl(there.portForwardUrl({ target, ports: of }));

async function echoes(client: StreamingClient): Promise<void> {
  const headers = { port: '8080', requestid: '0' };
  await client.open({ streamtype: 'error', ...headers });
  const data = await client.open({ streamtype: 'data', ...headers });
  client.data(data, 'a'.repeat(100_000), true);
  assert.equal(await client.ended(data), 'a'.repeat(100_000));
  assert.deepEqual(ports, [8080]);
}

test('a relayed port-forward works over SPDY', async () => {
  await using client = await StreamingClient.connect(relayed(), 'portforward.k8s.io');
  await echoes(client);
});

test('a relayed port-forward works through the messages of a WebSocket, which its server does not know', async () => {
  const tunnel = await ClientTunnel.connect(relayed(), 'SPDY/3.1+portforward.k8s.io');
  await using client = new StreamingClient(tunnel);
  await echoes(client);
  client.transport.end();
  await client.closed();
});

test('a relayed port-forward works by the older protocol of WebSocket', async () => {
  const socket = new WebSocket(relayed([8081]).replace('http:', 'ws:'), 'v4.channel.k8s.io');
  const heard = Promise.withResolvers<void>();
  socket.on('message', (message: Buffer) => {
    if (message[0] === 0 && message.toString().endsWith('hello')) heard.resolve();
  });
  await once(socket, 'open');
  assert.equal(socket.protocol, 'v4.channel.k8s.io');
  socket.send(Buffer.from('\0hello'));
  await heard.promise;
  socket.close();
  await once(socket, 'close');
  assert.deepEqual(ports, [8081]);
});

test('a client gets a reason when the other server refuses or is away, and one that is not of HTTP is not relayed', async () => {
  const gone = `${there.baseUrl}/portforward/none`;
  const refused = await askUpgrade(server.relayedPortForwardUrl(gone), spdyUpgrade('portforward.k8s.io'));
  assert.equal(refused.status, 502, refused.head);
  const url = relayed();
  await there[Symbol.asyncDispose]();
  const away = await askUpgrade(url, spdyUpgrade('portforward.k8s.io'));
  assert.equal(away.status, 502, away.head);
  const secure = 'https://127.0.0.1:1/portforward/x';
  assert.equal(server.relayedPortForwardUrl(secure), secure);
});

test('the session of a client that leaves before the other server answers ends', { timeout: 30_000 }, async () => {
  const asked = Promise.withResolvers<Socket>();
  await using slow = createServer((socket) => asked.resolve(socket)).listen(0, '127.0.0.1');
  await once(slow, 'listening');
  const { port } = slow.address() as AddressInfo;
  const url = new URL(server.relayedPortForwardUrl(`http://127.0.0.1:${port}/portforward/x`));
  const client = connect(Number(url.port), url.hostname);
  client.on('error', () => {});
  const handshake = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==';
  const upgrade = `Connection: Upgrade\r\nUpgrade: websocket\r\n${handshake}`;
  const wanted = 'Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io';
  client.write(`GET ${url.pathname} HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n${wanted}\r\n\r\n`);
  const there = await asked.promise;
  there.resume();
  client.resetAndDestroy();
  await setTimeout(100); // podvm learns of that before the answer
  there.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n');
  await once(there, 'close');
});

for (const [name, ends] of [
  ['its server', () => there],
  ['podvm', () => server],
] as const) {
  test(`the end of ${name} ends a relayed session`, async () => {
    const client = await StreamingClient.connect(relayed(), 'portforward.k8s.io');
    await client.open({ streamtype: 'error', port: '8080', requestid: '0' });
    await ends()[Symbol.asyncDispose]();
    await client.closed();
  });
}
