import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { WebSocketServer } from 'ws';
import { channel } from '#api/exec.ts';
import type { PodDetails } from '#api/pods.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { createServer } from '#host/socket/node-http.ts';
import { poll } from '#host/wait.ts';
import { createClient } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { attachCommand } from './attach-command.ts';

const details: PodDetails = {
  namespace: 'default',
  name: 'sh',
  phase: 'Running',
  ready: '1/1',
  restarts: 0,
  createdAt: '2026-01-01T00:00:00Z',
  addresses: [],
  labels: {},
  uid: '1',
  containers: [
    { name: 'main', kind: 'main', image: 'a', state: 'running', ready: true, restartCount: 0, stdin: true, tty: true },
  ],
  events: [],
};

/** A podvm with one pod, which runs on. */
async function openServer() {
  const undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-attach-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const server = createServer((_, response) => response.end(JSON.stringify(details))).listen(join(directory, 'socket'));
  undo.defer(async () => {
    server.close();
    await once(server, 'close');
  });
  await once(server, 'listening');
  let input = '';
  const sockets = new WebSocketServer({ server });
  undo.defer(() => {
    for (const socket of sockets.clients) socket.terminate();
  });
  sockets.on('connection', (socket, { url }) => {
    if (url?.includes('/input?') !== true) return;
    socket.on('message', (data) => {
      const frame = messageBytes(data);
      if (frame[0] === channel.stdin) input += frame.subarray(1).toString();
    });
  });
  return {
    client: createClient(join(directory, 'socket')),
    input: () => input,
    [Symbol.asyncDispose]: () => undo.disposeAsync(),
  };
}

function createTerminal() {
  const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => undefined });
  const screen = () => Object.assign(new PassThrough(), { isTTY: true, columns: 80, rows: 24 });
  const { signal: outputGone } = new AbortController();
  const terminal = { stdin, stdout: screen(), stderr: screen(), hasColour: false, outputGone };
  return { stdin, terminal: terminal as unknown as Terminal }; // SAFE: all that it uses
}

const noSignals = {
  any: new AbortController().signal,
  exitCode: undefined,
  listen: () => () => {},
  [Symbol.dispose]() {},
};

test('attach passes on what was typed before the container takes input, and is left by Ctrl-P Ctrl-Q', async () => {
  await using server = await openServer();
  const { stdin, terminal } = createTerminal();
  stdin.write('typed ');
  const attached = attachCommand(server.client, 'sh', { stdin: true }, terminal, noSignals);
  stdin.write('early\n');
  const signal = AbortSignal.timeout(30_000);
  await poll(async () => server.input().includes('early') || undefined, { everyMs: 1, signal });
  const input = server.input();
  stdin.write('\u0010');
  stdin.write('\u0011');
  assert.equal(await attached, 0);
  assert.equal(input, 'typed early\n');
});
