import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { type Clock, systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { StreamingClient } from '../testing/streaming-client.ts';
import { FakeContainer } from '../testing/fake-container.ts';
import { defaultStreamingSettings, serveStreaming } from './server.ts';
import { numbers, rawControl } from './spdy/frame-encoder.ts';
import { types } from './spdy/frame.ts';
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

async function openStreams(url: string, { stdin, stdout, stderr, tty }: StreamChoice, protocol?: string) {
  const client = await StreamingClient.connect(url, protocol);
  const open = async (isWanted: boolean, streamtype: string) => (isWanted ? await client.open({ streamtype }) : 0);
  return {
    client,
    error: await open(true, 'error'),
    stdin: await open(stdin, 'stdin'),
    stdout: await open(stdout, 'stdout'),
    stderr: await open(stderr, 'stderr'),
    resize: await open(tty, 'resize'),
  };
}

async function exec(choice: StreamChoice, protocol?: string) {
  const url = server.execUrl({ ...choice, target: container, command: ['sh'] });
  const streams = await openStreams(url, choice, protocol);
  return { ...streams, process: await container.process() };
}

const attach = (choice: StreamChoice) => openStreams(server.attachUrl({ ...choice, target: container }), choice);

test('exec carries input, its end, both outputs, and success', async () => {
  const { client, process, ...streams } = await exec(plain);
  assert.deepEqual(process.spec, { command: ['sh'], tty: false, stdin: true });
  process.readInput();
  client.data(streams.stdin, 'from the ');
  client.data(streams.stdin, 'client', true);
  await process.awaited.until('the end of input', () => process.hasInputEnded);
  assert.equal(process.input, 'from the client');
  process.stdout.write('one\n');
  process.stderr.write('two\n');
  await client.receives(streams.stderr, 'two\n');
  process.exit(0);
  assert.equal(await client.ended(streams.stdout), 'one\n');
  assert.equal(await client.ended(streams.stderr), 'two\n');
  assert.deepEqual(JSON.parse(await client.ended(streams.error)), { metadata: {}, status: 'Success' });
  await client.closed();
});

test('exec reports the exit code as the kubelet does', async () => {
  const { client, process, error } = await exec(plain);
  process.exit(42);
  assert.deepEqual(JSON.parse(await client.ended(error)), {
    metadata: {},
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: 'command terminated with non-zero exit code: 42',
    details: { causes: [{ reason: 'ExitCode', message: '42' }] },
  });
});

test('exec reports why there is no process', async () => {
  container.refusal = new PodvmError('failedPrecondition', 'Cannot run a command in web: it has exited');
  const { client, error } = await openStreams(server.execUrl({ ...plain, target: container, command: ['sh'] }), plain);
  const status = JSON.parse(await client.ended(error)) as { reason: string; message: string };
  assert.equal(status.reason, 'InternalError');
  assert.equal(status.message, 'Cannot run a command in web: it has exited');
  await client.closed();
});

test('exec with a terminal follows its sizes, and always applies the last one', async () => {
  const { client, process, resize } = await exec(terminal);
  assert.equal(process.spec.tty, true);
  client.data(resize, '{"Width":80,"He');
  client.data(resize, 'ight":24}\n{"Width":100,"Height":50}');
  await process.awaited.until('the last size', () => process.sizes.includes('100x50'));
  client.data(resize, 'nonsense } {"Width":-1,"Height":5}{"Width":120,"Height":40}');
  await process.awaited.until('a size after nonsense', () => process.sizes.at(-1) === '120x40');
  process.exit(0);
  await client.closed();
});

test('exec hangs up the terminal of a client that disconnects, and kills other processes', async () => {
  const withTerminal = await exec(terminal);
  withTerminal.client.transport.destroy();
  await withTerminal.process.awaited.until('a signal', () => withTerminal.process.signals.length > 0);
  assert.deepEqual(withTerminal.process.signals, [1]);
  withTerminal.process.exit(129);

  const without = await openStreams(server.execUrl({ ...plain, target: container, command: ['sh'] }), plain);
  const process = await container.process(1);
  without.client.transport.destroy();
  await process.awaited.until('a signal', () => process.signals.includes(9));
});

test('exec kills the process of a client that disconnects while its input is full', async () => {
  const { client, process, stdin } = await exec(plain);
  for (let sent = 0; sent < 2 * 1024 * 1024; sent += 64 * 1024) client.data(stdin, Buffer.alloc(64 * 1024));
  client.reset(stdin); // after all that unread input
  await process.awaited.until('some input', () => process.stdin.readableLength > 0);
  client.transport.destroy();
  await server[Symbol.asyncDispose](); // without waiting for a ping to detect the disconnect
  assert.ok(process.signals.includes(9));
});

/** Resolves when the number has not changed for some time. */
async function rests(read: () => number): Promise<number> {
  for (let last = read(), since = Date.now(); ;) {
    await new Promise((resolve) => void setTimeout(resolve, 20));
    if (read() !== last) [last, since] = [read(), Date.now()];
    else if (Date.now() - since > 300) return last;
  }
}

test('exec kills a process whose client disconnects during its start', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  container.startable = promise;
  const { client, process } = await exec(plain);
  client.transport.destroy();
  await client.closed();
  // The server must know of it before the start ends: it answers another client after that.
  await assert.rejects(StreamingClient.connect(`${server.baseUrl}/exec/none`));
  resolve();
  await process.awaited.until('a signal', () => process.signals.includes(9));
});

test('exec blocks a client that sends faster than the process reads, and loses nothing', async () => {
  const { client, process, stdin } = await exec(plain);
  const total = 48 * 1024 * 1024; // more than the kernel buffers for both
  const piece = Buffer.alloc(64 * 1024, 'x');
  for (let sent = 0; sent < total; sent += piece.length) client.data(stdin, piece);
  client.end(stdin);
  const held = await rests(() => client.transport.writableLength);
  assert.ok(held > 16 * 1024 * 1024, `${held} bytes are held back`);
  process.readInput();
  await process.awaited.until('the end of input', () => process.hasInputEnded);
  assert.equal(process.input.length, total);
  process.exit(0);
  await client.closed();
});

test('exec blocks a process whose client does not read, and loses nothing', async () => {
  const { client, process, stdout } = await exec(plain);
  client.transport.pause();
  const total = 48 * 1024 * 1024;
  const piece = Buffer.alloc(64 * 1024, 'y');
  for (let written = 0; written < total; written += piece.length) process.stdout.write(piece);
  const held = await rests(() => process.stdout.writableLength + process.stdout.readableLength);
  assert.ok(held > 16 * 1024 * 1024, `${held} bytes are held back`);
  client.transport.resume();
  process.exit(0);
  assert.equal((await client.ended(stdout)).length, total);
});

test('exec handles other streams of its client when the process reads no input', async () => {
  const { client, process, stdin, resize } = await exec(terminal);
  process.stdin.destroy();
  for (let sent = 0; sent < 4 * 1024 * 1024; sent += 64 * 1024) client.data(stdin, Buffer.alloc(64 * 1024));
  client.data(resize, '{"Width":7,"Height":8}');
  await process.awaited.until('a size', () => process.sizes.includes('7x8'));
  process.exit(0);
  await client.closed();
});

test('exec respects the windows of a client that uses them', async () => {
  const { client, process, stdout } = await exec(plain);
  client.send(rawControl(types.settings, 0, numbers(1, 7, 1000)));
  client.send(rawControl(types.ping, 0, numbers(1)));
  await client.frame(types.ping, 1);
  process.stdout.write(Buffer.alloc(5000, 'z'));
  await client.awaited.until('a window full', () => client.received(stdout).length >= 1000);
  client.send(rawControl(types.ping, 0, numbers(3)));
  await client.frame(types.ping, 3);
  assert.equal(client.received(stdout).length, 1000);
  client.send(rawControl(types.windowUpdate, 0, numbers(stdout, 4000)));
  process.exit(0);
  assert.equal((await client.ended(stdout)).length, 5000);
});

test('exec sends window updates to a client that uses windows', async () => {
  const { client, process, stdin } = await exec(plain);
  process.readInput();
  client.data(stdin, Buffer.alloc(48 * 1024));
  assert.deepEqual((await client.frame(types.windowUpdate, stdin)).payload, numbers(stdin, 48 * 1024));
  assert.deepEqual((await client.frame(types.windowUpdate, 0)).payload, numbers(0, 48 * 1024));
  process.exit(0);
  await client.closed();
});

test('attach carries both directions, ends the container’s input with the client’s, and ends with the container', async () => {
  const { client, stdin, stdout, stderr, error } = await attach(plain);
  container.main.readInput();
  await container.write('stdout', 'prompt ');
  await client.receives(stdout, 'prompt ');
  client.data(stdin, 'echo hello\n', true);
  await container.main.awaited.until('the end of input', () => container.main.hasInputEnded);
  await container.write('stderr', 'warning');
  await container.write('stdout', 'hello\n');
  container.endOutput();
  assert.equal(await client.ended(stdout), 'prompt hello\n');
  assert.equal(await client.ended(stderr), 'warning');
  assert.deepEqual(JSON.parse(await client.ended(error)), { metadata: {}, status: 'Success' });
  await client.closed();
  assert.equal(container.detached, 1);
});

test('attach ends with its client when the container and its input continue', async () => {
  container.stdinOnce = false;
  container.main.readInput();
  const { client, stdin, error } = await attach(plain);
  client.data(stdin, 'one line\n', true);
  assert.match(await client.ended(error), /Success/);
  assert.equal(container.main.input, 'one line\n');
  assert.equal(container.main.hasInputEnded, false);
  assert.equal(container.detached, 1);
  assert.equal(container.followers.size, 0);
});

test('attach does not affect the container when its client disconnects', async () => {
  const { client } = await attach(terminal);
  await container.awaited.until('a follower', () => container.followers.size > 0);
  client.transport.destroy();
  await container.awaited.until('the detaching', () => container.detached === 1);
  assert.equal(container.main.hasInputEnded, false);
  assert.deepEqual(container.main.signals, []);
  assert.equal(container.followers.size, 0);
});

test('a client that does not open its streams in time is disconnected', async () => {
  await using impatient = await serveStreaming(
    { ...defaultStreamingSettings, openMs: 50 },
    { clock: systemClock, log: silentLog },
  );
  const client = await StreamingClient.connect(impatient.execUrl({ ...plain, target: container, command: ['sh'] }));
  await client.synStream({ streamtype: 'error' });
  await client.closed();
  assert.equal(container.processes.length, 0);
});

/** A clock that the test moves; actions run without the time that their consequences need. */
function createClock() {
  let nowMs = 0;
  const timers = new Set<{ readonly atMs: number; readonly action: () => void }>();
  const clock: Clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs,
    after(ms, action) {
      const timer = { atMs: nowMs + ms, action };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
  };
  const pass = (ms: number) => {
    nowMs += ms;
    for (const timer of [...timers].filter(({ atMs }) => atMs <= nowMs)) {
      timers.delete(timer);
      timer.action();
    }
  };
  return { clock, pass };
}

test('a session with only pings is idle, and ended', async () => {
  const { clock, pass } = createClock();
  await using busy = await serveStreaming({ ...defaultStreamingSettings, idleMs: 10_000 }, { clock, log: silentLog });
  const { client } = await openStreams(busy.execUrl({ ...terminal, target: container, command: ['sh'] }), terminal);
  const process = await container.process();
  pass(6_000);
  client.send(rawControl(types.ping, 0, numbers(1)));
  await client.awaited.until('its answer', () => client.frames.some(({ type }) => type === types.ping));
  pass(6_000);
  await process.awaited.until('a signal', () => process.signals.includes(1));
  process.exit(0);
  await client.closed();
});

for (const protocol of ['v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io']) {
  for (const [outcome, code, words] of [
    ['a failure as plain text', 3, 'command terminated with non-zero exit code: 3'],
    ['nothing for success', 0, ''],
  ] as const) {
    test(`${protocol} has ${outcome}`, async () => {
      const { client, process, ...streams } = await exec(plain, protocol);
      process.stdout.write('out');
      await client.receives(streams.stdout, 'out');
      process.exit(code);
      assert.equal(await client.ended(streams.error), words);
      await client.closed();
    });
  }
}
