import assert from 'node:assert/strict';
import { once } from 'node:events';
import { afterEach, beforeEach, test } from 'node:test';
import { WebSocket } from 'ws';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { Awaited } from '../testing/streaming-client.ts';
import { FakeContainer } from '../testing/fake-container.ts';
import { defaultStreamingSettings, serveStreaming } from './server.ts';
import type { StreamChoice, StreamingServer } from './streaming.ts';

let server: StreamingServer;
let container: FakeContainer;

beforeEach(async () => {
  server = await serveStreaming(defaultStreamingSettings, { clock: systemClock, log: silentLog });
  container = new FakeContainer();
});
afterEach(() => server[Symbol.asyncDispose]());

const plain: StreamChoice = { stdin: true, stdout: true, stderr: true, tty: false };
const terminal: StreamChoice = { stdin: true, stdout: true, stderr: false, tty: true };

/** A client that records the messages of each channel. */
class ChannelClient {
  readonly socket: WebSocket;
  readonly awaited = new Awaited();
  readonly #received = new Map<number, Buffer[]>();
  closeCode: number | undefined;

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data) => {
      const message = data as Buffer; // SAFE: `ws` returns Buffers by default
      const pieces = this.#received.get(message[0] ?? -1) ?? [];
      this.#received.set(message[0] ?? -1, [...pieces, message.subarray(1)]);
      this.awaited.changed();
    });
    socket.on('error', () => {});
    socket.once('close', (code) => {
      this.closeCode = code;
      this.awaited.changed();
    });
  }

  static async connect(url: string, protocols: string | string[]): Promise<ChannelClient> {
    const offered = protocols === '' ? [] : protocols;
    const client = new ChannelClient(new WebSocket(url.replace('http:', 'ws:'), offered));
    await once(client.socket, 'open');
    return client;
  }

  send(channel: number, text: string | Uint8Array): void {
    this.socket.send(Buffer.concat([Buffer.of(channel), Buffer.from(text)]));
  }

  text(channel: number): string | undefined {
    const pieces = this.#received.get(channel);
    return pieces === undefined ? undefined : Buffer.concat(pieces).toString();
  }

  async closed(): Promise<number> {
    return await this.awaited.until('the end of the connection', () => this.closeCode);
  }
}

const execUrl = (choice: StreamChoice) => server.execUrl({ ...choice, target: container, command: ['sh'] });

async function exec(choice: StreamChoice, protocol: string) {
  const client = await ChannelClient.connect(execUrl(choice), protocol);
  return { client, process: await container.process() };
}

test('v5 carries input and its end, both outputs and the exit code, and closes normally', async () => {
  const { client, process } = await exec(plain, 'v5.channel.k8s.io');
  process.readInput();
  client.send(0, 'some ');
  client.send(0, 'input');
  client.send(255, Buffer.of(0));
  await process.awaited.until('the end of input', () => process.hasInputEnded);
  assert.equal(process.input, 'some input');
  process.stdout.write('one');
  process.stderr.write('two');
  await client.awaited.until('both outputs', () => client.text(1) === 'one' && client.text(2) === 'two');
  process.exit(3);
  assert.equal(await client.closed(), 1000);
  const status = JSON.parse(client.text(3) ?? '') as { details: unknown };
  assert.deepEqual(status.details, { causes: [{ reason: 'ExitCode', message: '3' }] });
});

test('v4 has no message for the end of input, and ignores v5’s', async () => {
  const { client, process } = await exec(plain, 'v4.channel.k8s.io');
  process.readInput();
  client.send(255, Buffer.of(0));
  client.send(0, 'more');
  await process.awaited.until('input', () => process.input === 'more');
  assert.equal(process.hasInputEnded, false);
  process.exit(0);
  assert.equal(await client.closed(), 1000);
  assert.deepEqual(JSON.parse(client.text(3) ?? ''), { metadata: {}, status: 'Success' });
});

test('an empty message confirms the connection before any output', async () => {
  const { client, process } = await exec(terminal, 'v5.channel.k8s.io');
  await client.awaited.until('an empty message', () => client.text(1) === '');
  process.exit(0);
  await client.closed();
});

test('a terminal follows the sizes on its channel', async () => {
  const { client, process } = await exec(terminal, 'v5.channel.k8s.io');
  client.send(4, '{"Width":80,"Height":24}');
  await process.awaited.until('a size', () => process.sizes.includes('80x24'));
  client.send(4, '{"Width":81,"Height":25}\n');
  await process.awaited.until('another', () => process.sizes.includes('81x25'));
  process.exit(0);
  await client.closed();
});

test('the first supported protocol of the client’s list is chosen', async () => {
  const client = await ChannelClient.connect(execUrl(plain), [
    'v9.channel.k8s.io',
    'v4.channel.k8s.io',
    'v5.channel.k8s.io',
  ]);
  assert.equal(client.socket.protocol, 'v4.channel.k8s.io');
  client.socket.terminate();
  const refused = new WebSocket(execUrl(plain).replace('http:', 'ws:'), ['v9.channel.k8s.io']);
  const [error] = (await once(refused, 'error')) as [Error];
  assert.match(error.message, /403/);
});

for (const [protocol, encoding, status] of [
  ['v4.base64.channel.k8s.io', 'base64', 'json'],
  ['channel.k8s.io', 'binary', 'message'],
  ['base64.channel.k8s.io', 'base64', 'message'],
  ['', 'binary', 'message'],
] as const) {
  const inWords = status === 'json' ? 'JSON' : 'plain text';
  test(`${protocol || 'a client without a protocol'} carries streams as ${encoding} messages and a failure as ${inWords}`, async () => {
    const { client, process } = await exec(plain, protocol);
    assert.equal(client.socket.protocol, protocol);
    process.readInput();
    const [code, decode] =
      encoding === 'base64'
        ? [(text: string) => btoa(text), (text = '') => Buffer.from(text, 'base64').toString()]
        : [(text: string) => text, (text = '') => text];
    const channel = (number: number) => (encoding === 'base64' ? String(number).charCodeAt(0) : number);
    client.send(channel(0), '!'); // no base64: ignored where it should be
    client.send(channel(0), code('input'));
    const received = encoding === 'base64' ? 'input' : '!input';
    await process.awaited.until('input', () => process.input === received);
    process.stdout.write('one');
    process.stderr.write('two');
    await client.awaited.until('output', () => decode(client.text(channel(1))) === 'one');
    await client.awaited.until('errors', () => decode(client.text(channel(2))) === 'two');
    process.exit(3);
    assert.equal(await client.closed(), 1000);
    const words = decode(client.text(channel(3)));
    if (status === 'json') assert.equal((JSON.parse(words) as { reason: unknown }).reason, 'NonZeroExitCode');
    else assert.equal(words, 'command terminated with non-zero exit code: 3');
  });
}

test('protocols before version 4 have no message for success', async () => {
  const { client, process } = await exec(plain, 'channel.k8s.io');
  process.exit(0);
  assert.equal(await client.closed(), 1000);
  assert.equal(client.text(3), undefined);
});

test('messages on unknown or output channels, and empty ones, are ignored', async () => {
  const { client, process } = await exec({ ...plain, stdin: false }, 'v5.channel.k8s.io');
  client.socket.send(Buffer.alloc(0));
  client.send(0, 'unwanted input');
  client.send(1, 'output from a client');
  client.send(77, 'nonsense');
  client.send(255, Buffer.alloc(0));
  client.socket.send('text');
  process.stdout.write('alive');
  await client.awaited.until('output', () => client.text(1) === 'alive');
  process.exit(0);
  assert.equal(await client.closed(), 1000);
});

test('a message larger than the limit ends the session, and the process with it', async () => {
  const { client, process } = await exec(plain, 'v5.channel.k8s.io');
  client.send(0, Buffer.alloc(2 * 1024 * 1024));
  await client.closed();
  await process.awaited.until('a signal', () => process.signals.includes(9));
});

test('a client that sends faster than the process reads is blocked, and nothing is lost', async () => {
  const { client, process } = await exec(plain, 'v5.channel.k8s.io');
  const total = 48 * 1024 * 1024;
  for (let sent = 0; sent < total; sent += 64 * 1024) client.send(0, Buffer.alloc(64 * 1024, 'x'));
  client.send(255, Buffer.of(0));
  for (let last = -1; last !== client.socket.bufferedAmount;) {
    last = client.socket.bufferedAmount;
    await new Promise((resolve) => void setTimeout(resolve, 300));
  }
  assert.ok(client.socket.bufferedAmount > 16 * 1024 * 1024, `${client.socket.bufferedAmount} bytes are held back`);
  process.readInput();
  await process.awaited.until('the end of input', () => process.hasInputEnded);
  assert.equal(process.input.length, total);
  process.exit(0);
  await client.closed();
});

test('a client that disconnects ends its process, and its attach does not affect the container', async () => {
  const { client, process } = await exec(plain, 'v5.channel.k8s.io');
  client.socket.terminate();
  await process.awaited.until('a signal', () => process.signals.includes(9));

  const attached = await ChannelClient.connect(server.attachUrl({ ...plain, target: container }), 'v5.channel.k8s.io');
  await container.write('stdout', 'hello');
  await attached.awaited.until('output', () => attached.text(1) === 'hello');
  attached.socket.terminate();
  await container.awaited.until('the detaching', () => container.detached === 1);
  assert.deepEqual(container.main.signals, []);
});

test('attach over v5 ends the container’s input with the client’s', async () => {
  container.main.readInput();
  const client = await ChannelClient.connect(server.attachUrl({ ...plain, target: container }), 'v5.channel.k8s.io');
  client.send(0, 'exit\n');
  client.send(255, Buffer.of(0));
  await container.main.awaited.until('the end of input', () => container.main.hasInputEnded);
  container.endOutput();
  assert.equal(await client.closed(), 1000);
  assert.match(client.text(3) ?? '', /Success/);
});
