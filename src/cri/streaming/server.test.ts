import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { askUpgrade, StreamingClient, spdyUpgrade } from '../testing/streaming-client.ts';
import { FakeContainer } from '../testing/fake-container.ts';
import { defaultStreamingSettings, serveStreaming } from './server.ts';
import { numbers, rawControl, rawData } from './spdy/frame-encoder.ts';
import { types } from './spdy/frame.ts';
import { spdyLimits } from './spdy/limits.ts';
import type { PortForwardStreamRequest, StreamingServer } from './streaming.ts';

let server: StreamingServer;
let container: FakeContainer;

beforeEach(async () => {
  server = await serveStreaming(defaultStreamingSettings, { clock: systemClock, log: silentLog });
  container = new FakeContainer();
});
/** Waits for every session: a leaked one fails its test. */
afterEach(() => server[Symbol.asyncDispose]());

const plain = { stdin: true, stdout: true, stderr: true, tty: false };
const execUrl = () => server.execUrl({ ...plain, target: container, command: ['sh'] });
const nowhere: PortForwardStreamRequest['target'] = {
  dial: () => Promise.reject(new Error('this target has no dial')),
};

test('execUrl() and attachUrl() refuse what CRI refuses', () => {
  const refused = [
    { stdin: false, stdout: false, stderr: false, tty: false },
    { stdin: false, stdout: false, stderr: false, tty: true },
    { stdin: true, stdout: true, stderr: true, tty: true },
  ];
  for (const choice of refused) {
    assert.throws(() => server.execUrl({ ...choice, target: container, command: ['sh'] }), { kind: 'invalid' });
    assert.throws(() => server.attachUrl({ ...choice, target: container }), { kind: 'invalid' });
  }
  assert.throws(() => server.execUrl({ ...plain, target: container, command: [] }), { kind: 'invalid' });
});

test('serveStreaming() listens on loopback by default, and returns its address', async () => {
  assert.match(server.baseUrl, /^http:\/\/127\.0\.0\.1:\d+$/);
  assert.ok(execUrl().startsWith(`${server.baseUrl}/exec/`));
  await using six = await serveStreaming(
    { ...defaultStreamingSettings, address: '::1' },
    { clock: systemClock, log: silentLog },
  );
  assert.match(six.baseUrl, /^http:\/\/\[::1\]:\d+$/);
  const port = Number(new URL(server.baseUrl).port);
  await assert.rejects(serveStreaming({ ...defaultStreamingSettings, port }, { clock: systemClock, log: silentLog }), {
    kind: 'failedPrecondition',
  });
});

test('a URL works once, for its own kind only, and cannot be guessed', async () => {
  const url = execUrl();
  const v4 = spdyUpgrade('v4.channel.k8s.io');
  const wrong = [
    url.replace('/exec/', '/attach/'),
    url.replace('/exec/', '/portforward/'),
    url.replace('/exec/', '/'),
    `${url}x`,
    `${server.baseUrl}/exec/`,
    server.baseUrl,
  ];
  for (const bad of wrong) assert.equal((await askUpgrade(bad, v4)).status, 404, bad);
  const { status, socket } = await askUpgrade(url, v4);
  assert.equal(status, 101);
  assert.equal((await askUpgrade(url, v4)).status, 404);
  socket.destroy();
});

test('a client with unsupported protocols gets the list, and may try again', async () => {
  const url = execUrl();
  const refusals: [Record<string, string>, number][] = [
    [{ 'Content-Length': '0' }, 404],
    [{ Connection: 'Upgrade', Upgrade: 'h2c' }, 400],
    [{ Connection: 'Upgrade', Upgrade: 'SPDY/3.1' }, 403],
    [spdyUpgrade('v1.channel.k8s.io, base64.channel.k8s.io'), 403],
    [spdyUpgrade('portforward.k8s.io'), 403],
  ];
  for (const [headers, expected] of refusals) {
    const { status, head } = await askUpgrade(url, headers);
    assert.equal(status, expected, head);
    if (expected === 403) assert.match(head, /X-Accepted-Stream-Protocol-Versions: v4\.channel\.k8s\.io/);
  }
  const offer = spdyUpgrade('v9.channel.k8s.io, v4.channel.k8s.io,v3.channel.k8s.io');
  const { status, socket } = await askUpgrade(url, offer);
  assert.equal(status, 101);
  socket.destroy();
});

test('a refused client that stays connected is disconnected', async () => {
  const socket = connect({ port: Number(new URL(server.baseUrl).port), host: '127.0.0.1', allowHalfOpen: true });
  const left = Promise.withResolvers<void>();
  socket.on('error', () => {}).once('close', left.resolve);
  socket.write('POST /exec/none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n');
  await once(socket.resume(), 'end');
  const stays = setInterval(() => socket.write('still here'), 50); // an end does not close the client's half
  await left.promise;
  clearInterval(stays);
});

test('a GET upgrades to SPDY like a POST', async () => {
  const { status, socket } = await askUpgrade(execUrl(), spdyUpgrade('v4.channel.k8s.io'), 'GET');
  assert.equal(status, 101);
  socket.destroy();
});

test('dispose ends every session, and the processes of its clients', async () => {
  const client = await StreamingClient.connect(execUrl());
  for (const streamtype of ['error', 'stdin', 'stdout', 'stderr']) await client.open({ streamtype });
  const process = await container.process();
  const forwarding = await StreamingClient.connect(
    server.portForwardUrl({ target: nowhere, ports: [] }),
    'portforward.k8s.io',
  );
  const half = connect(Number(new URL(server.baseUrl).port), '127.0.0.1');
  half.on('error', () => {});
  await once(half, 'connect');
  half.write('POST /exec/');
  await server[Symbol.asyncDispose]();
  await client.closed();
  await forwarding.closed();
  assert.ok(process.signals.includes(9));
  await assert.rejects(askUpgrade(server.baseUrl, {}));
});

const hostile: readonly (readonly [string, (client: StreamingClient) => Promise<void> | void])[] = [
  ['sends garbage', (client) => client.send(Buffer.alloc(100_000, 0xff))],
  ['answers in HTTP', (client) => client.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'.repeat(1000)))],
  [
    'sends headers that are not zlib data',
    (client) => client.send(rawControl(types.synStream, 0, Buffer.alloc(100, 1))),
  ],
  [
    'announces a control frame of 16 MiB',
    (client) => client.send(rawControl(types.ping, 0, Buffer.alloc(0xff_ffff)).subarray(0, 8)),
  ],
  ['opens a stream with an even number', async (client) => void (await client.synStream({ streamtype: 'error' }, 2))],
  [
    'opens one stream twice',
    async (client) => {
      await client.open({ streamtype: 'error' });
      await client.synStream({ streamtype: 'stdout' }, 1);
    },
  ],
  ['sends data on a stream that was never opened', (client) => client.data(9, 'x')],
  ['answers a stream that was never opened', (client) => client.send(rawControl(types.synReply, 0, Buffer.alloc(20)))],
  [
    'opens streams without end',
    async (client) => {
      for (let count = 0; count < spdyLimits.refusals + 10; count += 1) await client.synStream({ streamtype: 'junk' });
    },
  ],
  [
    'widens its window beyond 2 GiB',
    (client) => {
      for (let count = 0; count < 3; count += 1)
        client.send(rawControl(types.windowUpdate, 0, numbers(0, 0x7fff_ffff)));
    },
  ],
  [
    'pings without end and reads no answer',
    async (client) => {
      client.transport.pause();
      const pings = Buffer.concat(Array.from({ length: 4096 }, () => rawControl(types.ping, 0, numbers(1))));
      // Writes until the server disconnects, which a later write reports.
      while (!client.transport.destroyed && client.transport.writable) {
        const written = await new Promise<boolean>((resolve) => {
          client.transport.write(pings, (error) => resolve(error === null || error === undefined));
        });
        if (!written) return;
      }
    },
  ],
];

for (const [what, misbehave] of hostile) {
  test(`a client that ${what} is disconnected, and leaves nothing`, async () => {
    const client = await StreamingClient.connect(execUrl());
    await misbehave(client);
    client.transport.resume();
    await client.closed();
    assert.equal(container.processes.length, 0);
  });
}

test('a client that ends its half of the connection is disconnected, and its process ends', async () => {
  const client = await StreamingClient.connect(execUrl());
  for (const streamtype of ['error', 'stdin', 'stdout', 'stderr']) await client.open({ streamtype });
  const process = await container.process();
  client.transport.end();
  await process.awaited.until('a signal', () => process.signals.includes(9));
  await client.closed();
});

test('open streams above the limit are refused, and the others continue', async () => {
  const client = await StreamingClient.connect(
    server.portForwardUrl({ target: nowhere, ports: [] }),
    'portforward.k8s.io',
  );
  for (let count = 0; count < spdyLimits.streams; count += 1) {
    await client.synStream({ streamtype: 'data', port: '80', requestid: String(count) });
  }
  const surplus = await client.synStream({ streamtype: 'data', port: '80', requestid: 'surplus' });
  await client.frame(types.rstStream, surplus);
  client.reset(1);
  await client.open({ streamtype: 'data', port: '80', requestid: 'again' });
  client.transport.destroy();
});

test('data after the end of a stream resets only that stream', async () => {
  const client = await StreamingClient.connect(execUrl());
  const error = await client.open({ streamtype: 'error' });
  const stdin = await client.open({ streamtype: 'stdin' });
  client.data(stdin, 'x', true);
  client.data(stdin, 'y');
  await client.frame(types.rstStream, stdin);
  client.send(rawControl(types.ping, 0, numbers(5)));
  await client.frame(types.ping, 5);
  assert.ok(!client.hasEnded(error));
  client.transport.destroy();
});

test('a session with random bytes ends when its client disconnects', async () => {
  const frame = fc.oneof(
    fc
      .tuple(fc.integer({ min: 1, max: 9 }), fc.nat(3), fc.uint8Array({ maxLength: 40 }))
      .map(([type, flags, payload]) => rawControl(type, flags, payload)),
    fc
      .tuple(fc.integer({ min: 1, max: 11 }), fc.uint8Array({ maxLength: 200 }), fc.boolean())
      .map(([id, bytes, fin]) => rawData(id, bytes, fin)),
    fc.uint8Array({ maxLength: 60 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 10 }), async (pieces) => {
      const target = new FakeContainer();
      const client = await StreamingClient.connect(server.execUrl({ ...plain, target, command: ['sh'] }));
      for (const streamtype of ['error', 'stdin', 'stdout', 'stderr']) await client.open({ streamtype });
      const process = await target.process();
      process.readInput();
      for (const piece of pieces) client.send(piece);
      client.transport.end();
      await process.awaited.until('a signal', () => process.signals.includes(9));
      await client.closed();
    }),
    { numRuns: 60 },
  );
});
