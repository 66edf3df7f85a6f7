import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { holdPorts, type HeldPorts } from './held-ports.ts';
import type { HostPort } from '../network.ts';

const soon = () => AbortSignal.timeout(60_000);
const owner = (name: string) => ({ sandboxId: `test-${name}`, pod: `shop/${name}` });
const hold = (name: string, ...ports: readonly HostPort[]) => holdPorts(ports, owner(name), soon());

/** A port that is currently free for both protocols. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
  server.close();
  await once(server, 'close');
  return port;
}

/** Stands in for a pod: answers each line and the end of input, and reports how connections closed. */
async function openPod(host = '127.0.0.1') {
  const resets: boolean[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => resets.push(true));
    socket.on('data', (bytes: Buffer) => socket.write(`pod: ${bytes.toString()}`));
    socket.on('end', () => socket.end('pod: bye\n'));
  }).listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo; // SAFE: as above
  return {
    port,
    resets,
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}

async function say(host: string, port: number, words: string): Promise<string> {
  const socket = connect({ host, port, allowHalfOpen: true });
  socket.end(words);
  return await text(socket);
}

const whatIsTaken =
  (protocol: string, port: number, who: RegExp) => (error: Error & { kind?: string; fix?: string }) => {
    assert.equal(error.kind, 'alreadyExists');
    assert.ok(error.message.startsWith(`Cannot give pod shop/late host port ${port}/${protocol}: `), error.message);
    assert.match(error.message, who);
    assert.match(error.fix ?? '', /another hostPort/);
    return true;
  };

describe('holdPorts()', () => {
  test('refuses a port on which a process of the host listens, and names the process', async () => {
    for (const host of ['0.0.0.0', '127.0.0.1', '::', '::1']) {
      const server = createServer().listen({ port: 0, host, ipv6Only: true }).unref();
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo; // SAFE: as above
      const late = hold('late', { protocol: 'TCP', hostPort: port, containerPort: 80 });
      await assert.rejects(late, whatIsTaken('TCP', port, new RegExp(`process ${process.pid} \\(.+\\) has it$`)), host);
      server.close();
      await once(server, 'close');
      await using _now = await hold('late', { protocol: 'TCP', hostPort: port, containerPort: 80 });
    }
    const socket = createSocket('udp4').bind(0, '127.0.0.1').unref();
    await once(socket, 'listening');
    const { port } = socket.address();
    const late = hold('late', { protocol: 'UDP', hostPort: port, containerPort: 80 });
    await assert.rejects(late, whatIsTaken('UDP', port, new RegExp(`process ${process.pid} `)));
    await using _tcp = await hold('late', { protocol: 'TCP', hostPort: port, containerPort: 80 });
    socket.close();
    await once(socket, 'close');
  });

  test('refuses a port that a pod of any podvm has, and names the pod', async () => {
    const hostPort = await freePort();
    for (const protocol of ['TCP', 'UDP', 'SCTP'] as const) {
      const port = { protocol, hostPort, containerPort: 80 };
      await using held = await hold('early', port);
      await assert.rejects(hold('late', port), whatIsTaken(protocol, hostPort, /pod shop\/early has it$/));
      const onLoopback = { ...port, hostIP: '127.0.0.1' };
      if (protocol !== 'SCTP') await assert.rejects(hold('late', onLoopback), /shop\/early has it$/);
      await held[Symbol.asyncDispose]();
      await using _next = await hold('late', port);
    }
  });

  test('reserves the port against processes of the host, and releases it', async () => {
    const hostPort = await freePort();
    const listens = async (host: string) => {
      const server = createServer();
      server.listen({ port: hostPort, host });
      return await once(server, 'listening').then(
        async () => {
          server.close();
          await once(server, 'close');
          return true;
        },
        () => false,
      );
    };
    const held = await hold('web', { protocol: 'TCP', hostPort, containerPort: 80 });
    for (const host of ['0.0.0.0', '127.0.0.1', '::1']) assert.equal(await listens(host), false, host);
    await held[Symbol.asyncDispose]();
    assert.equal(await listens('0.0.0.0'), true);
  });

  test('leaves other addresses of the same port free', async () => {
    const hostPort = await freePort();
    await using _one = await hold('one', { protocol: 'TCP', hostPort, containerPort: 80, hostIP: '127.0.0.1' });
    await using _two = await hold('two', { protocol: 'TCP', hostPort, containerPort: 80, hostIP: '127.0.0.2' });
  });

  test('holds none when it cannot hold all, or was cancelled', async () => {
    const [free, used] = [await freePort(), await freePort()];
    await using _used = await hold('early', { protocol: 'TCP', hostPort: used, containerPort: 80 });
    const ports = [free, used].map((hostPort) => ({ protocol: 'TCP', hostPort, containerPort: 80 }) as const);
    await assert.rejects(hold('late', ...ports));
    const cancelled = holdPorts(ports.slice(0, 1), owner('late'), AbortSignal.abort(new Error('no')));
    await assert.rejects(cancelled, /no/);
    await using _now = await hold('late', { protocol: 'TCP', hostPort: free, containerPort: 80 });
  });

  test('holds nothing at an address that the host does not have', async () => {
    await using _held = await hold('vip', { protocol: 'TCP', hostPort: 8080, containerPort: 80, hostIP: '192.0.2.77' });
  });
});

describe('a held port', () => {
  const connected = async (use: (hostPort: number, held: HeldPorts) => Promise<void>, containerPort: number) => {
    const hostPort = await freePort();
    await using held = await holdPorts([{ protocol: 'TCP', hostPort, containerPort }], owner('web'), soon());
    await use(hostPort, held);
  };

  test('resets connections before the pod is connected', async () => {
    await connected(async (hostPort) => {
      await assert.rejects(say('127.0.0.1', hostPort, 'hello\n'), { code: 'ECONNRESET' });
    }, 80);
  });

  test('carries streams of 127.0.0.1 and ::1 to the pod, with the end of each direction', async () => {
    await using pod = await openPod();
    await connected(async (hostPort, held) => {
      held.forward(['127.0.0.1']);
      for (const host of ['127.0.0.1', '127.0.0.9', '::1'])
        assert.equal(await say(host, hostPort, 'hello\n'), 'pod: hello\npod: bye\n', host);
    }, pod.port);
  });

  test("prefers the pod's address of the caller's family", async () => {
    await using pod = await openPod('::1');
    await connected(async (hostPort, held) => {
      held.forward(['127.0.0.1', '::1']);
      assert.equal(await say('::1', hostPort, 'six\n'), 'pod: six\npod: bye\n');
      await assert.rejects(say('127.0.0.1', hostPort, 'four\n'), { code: 'ECONNRESET' });
    }, pod.port);
  });

  test('carries large amounts of data in both directions at once, unchanged', async () => {
    await using pod = await openPod();
    await connected(async (hostPort, held) => {
      held.forward(['127.0.0.1']);
      const words = 'x'.repeat(4 * 1024 * 1024);
      const answer = (await say('127.0.0.1', hostPort, words)).replaceAll('pod: ', '');
      assert.equal(answer.length, words.length + 'bye\n'.length);
    }, pod.port);
  });

  test('resets the pod’s connection when a client is reset, and clients when the port is released', async () => {
    await using pod = await openPod();
    await connected(async (hostPort, held) => {
      held.forward(['127.0.0.1']);
      const first = connect(hostPort, '127.0.0.1');
      first.write('hello\n');
      await once(first, 'data');
      first.resetAndDestroy();
      for (const deadline = soon(); pod.resets.length === 0; await new Promise(setImmediate)) deadline.throwIfAborted();
      const second = connect(hostPort, '127.0.0.1');
      second.write('hello\n');
      await once(second, 'data');
      await held[Symbol.asyncDispose]();
      await assert.rejects(text(second), { code: 'ECONNRESET' });
    }, pod.port);
  });

  test('carries datagrams, and returns the answers to each peer', async () => {
    const pod = createSocket('udp4').bind(0, '127.0.0.1');
    await once(pod, 'listening');
    pod.on('message', (bytes, { address, port }) => pod.send(`pod: ${bytes.toString()}`, port, address));
    const hostPort = await freePort();
    const containerPort = pod.address().port;
    await using held = await hold('dns', { protocol: 'UDP', hostPort, containerPort });
    held.forward(['127.0.0.1']);
    for (const [type, host] of [
      ['udp4', '127.0.0.1'],
      ['udp6', '::1'],
      ['udp4', '127.0.0.1'],
    ] as const) {
      const client = createSocket(type);
      client.connect(hostPort, host);
      await once(client, 'connect');
      for (const word of ['one', 'two']) {
        client.send(word);
        const [answer] = (await once(client, 'message', { signal: soon() })) as [Buffer];
        assert.equal(answer.toString(), `pod: ${word}`);
      }
      client.close();
    }
    pod.close();
  });
});
