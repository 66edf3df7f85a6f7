import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { forwardPorts, holdConnections, portIn } from './forward-ports.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

/** Sockets of a client that has connected from port 52,854 to 8080, which was redirected to the listener at 1. */
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0001 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9819398 1 00000000cea0f277
   1: 0100007F:0001 0100007F:CE76 04 00000001:00000000 01:00000014 00000000     0        0 9819401 2 0000000078f2eeb6
   2: 0100007F:CE76 0100007F:1F90 08 00000000:00000004 00:00000000 00000000     0        0 9819400 3 00000000f9e36934
`;

test('portIn() finds the original port of a redirected client', () => {
  assert.equal(portIn(table, 52_854), 8080);
  assert.equal(portIn(table, 1234), undefined);
  assert.equal(portIn(table, 1), 52_854); // the listener's own socket, which no client has
  assert.equal(portIn('', 1), undefined);
});

/** A network namespace, as that of a pod; programs that are started in it end with it. */
async function openNetns() {
  const holder = spawn('unshare', ['--net', 'sh', '-ec', 'ip link set lo up; echo ready; exec sleep 600']);
  await once(holder.stdout, 'data');
  const netns = `/proc/${holder.pid}/ns/net`;
  const others: ChildProcess[] = [];
  const run = (program: string) => {
    const child = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', program]);
    others.push(child);
    return child;
  };
  return {
    netns,
    async listen(port: number): Promise<void> {
      const listening = `require('node:net').createServer().listen(${port}, '127.0.0.1', () => console.log('up'))`;
      await once(run(listening).stdout, 'data');
    },
    /** Connects to a port and sends a line. Returns what comes back, or the error. */
    connect(port: number): Promise<string> {
      const program = `const socket = require('node:net').connect(${port}, '127.0.0.1', () => socket.end('hello'));
        socket.on('error', ({ code }) => console.log(code)).pipe(process.stdout);`;
      return text(run(program).stdout);
    },
    /** Settles when a client has sent its first segment to the port, and nothing has come back. */
    async isWaiting(port: number): Promise<void> {
      const asked = new RegExp(` 0100007F:${port.toString(16).toUpperCase().padStart(4, '0')} 02 `); // SYN_SENT
      const look = async () => asked.test(await readFile(`/proc/${holder.pid}/net/tcp`, 'latin1')) || undefined;
      assert.ok(await poll(look, { everyMs: 50, signal: AbortSignal.timeout(60_000) }), 'no client waits');
    },
    async [Symbol.asyncDispose]() {
      for (const child of [...others, holder]) {
        if (child.exitCode !== null) continue;
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        await ended;
      }
    },
  };
}

/** A sandbox whose programs send back what they get, after the port. */
function echoing(netns: string): Sandbox {
  const dial = async (port: number) => {
    const echo = new PassThrough();
    echo.write(`${port}: `);
    return echo;
  };
  return { id: 'echo', spec: { netns }, dial } as unknown as Sandbox; // SAFE: all that is used
}

test('a connection to a new pod waits for the listener, and then reaches the port', { skip }, async () => {
  await using pod = await openNetns();
  assert.equal(await pod.connect(8080), 'ECONNREFUSED\n', 'as nothing listens');
  await holdConnections({ spec: { netns: pod.netns } as Sandbox['spec'] });
  const answer = pod.connect(8080);
  await pod.isWaiting(8080);
  using _forwarding = await forwardPorts(echoing(pod.netns), silentLog);
  assert.equal(await answer, '8080: hello');
  assert.equal(await pod.connect(80), '80: hello', 'the next one does not wait');
});

test('connections are refused when ports cannot be forwarded, and do not wait', { skip }, async () => {
  await using pod = await openNetns();
  await pod.listen(1);
  await holdConnections({ spec: { netns: pod.netns } as Sandbox['spec'] });
  const answer = pod.connect(8080);
  await pod.isWaiting(8080);
  await assert.rejects(forwardPorts(echoing(pod.netns), silentLog), /Cannot listen in/);
  assert.equal(await answer, 'ECONNREFUSED\n');
});
