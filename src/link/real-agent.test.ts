import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { lstat, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { asRequest } from '#host/log/request.ts';
import { poll } from '#host/wait.ts';
import type { Link } from './link.ts';
import { AgentProcess, push } from './testing/agent-process.ts';
import { describeGuest } from './testing/link.conformance.ts';
import { encodeFrame, FrameParser, frameKinds } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { protocolVersions } from '#wire/messages.ts';
import { buildRoot, builtAgent } from '../../test/built-program.ts';

/** `configure` is left to whole-VM tests, since it sets the clock. */
const isPossible = existsSync(join(buildRoot, 'usr/bin/gcc')) && process.getuid?.() === 0;
const skip = isPossible || process.env['PODVM_REQUIRE_VM'] === '1' ? false : 'needs root and `podvm setup`';

const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;
const never = new AbortController().signal;
const serverPort = (server: Server) => (server.address() as AddressInfo).port; // SAFE: it listens on TCP

let directory = '';
const startAgent = () => AgentProcess.start(join(directory, 'agent'));

async function listening(onConnection: (socket: Socket) => void, host = '127.0.0.1'): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  server.listen(0, host);
  await once(server, 'listening');
  server.unref();
  return server;
}

async function dialled(link: Link, server: Server, address = '127.0.0.1') {
  const stream = link.openStream();
  stream.on('error', () => {});
  await link.call('dial', { stream: stream.id, address, port: serverPort(server) }, never);
  return stream;
}

describe('the agent', { skip }, () => {
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'podvm-agent-'));
    await builtAgent(directory, buildRoot);
  });
  after(() => rm(directory, { recursive: true, force: true }));

  describeGuest('real', async () => {
    const agent = await startAgent();
    const servers: Server[] = [];
    return {
      connect: () => agent.connect(),
      listen: async (onConnection) => {
        const server = await listening(onConnection);
        servers.push(server);
        return serverPort(server);
      },
      async [Symbol.asyncDispose]() {
        for (const server of servers) server.close();
        await agent[Symbol.asyncDispose]();
      },
    };
  });

  it('answers unknown and unreadable calls with an error, and continues', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    const call = link.call.bind(link) as (method: string, params: unknown, signal: AbortSignal) => Promise<unknown>;
    for (const method of ['reboot', 'constructor', '__proto__', '']) {
      await assert.rejects(call(method, {}, never), kind('unsupported'), method);
    }
    await assert.rejects(call('detachDisk', { serial: '../x' }, never), (error) => {
      assert.ok(kind('internal')(error) && error instanceof Error);
      assert.match(error.message, /detachDisk: .*serial/);
      return true;
    });
    for (const params of [null, 7, [], 'x'])
      await assert.rejects(call('createContainer', params, never), kind('internal'));
    await assert.rejects(link.call('startContainer', { id: 'none' }, never), kind('notFound'));
    await assert.rejects(link.call('beginPush', { volume: 'none' }, never), kind('notFound'));
    assert.ok((await link.call('ping', {}, never)).uptimeMs > 0);
  });

  it('names a failed call in its console by the client’s call that it is a part of', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    await asRequest('0af7651916cd43dd', () =>
      link.call('startContainer', { id: 'absent' }, never).catch(() => undefined),
    );
    const told = async () => (agent.console.includes('request') ? agent.console : undefined);
    const console = await poll(told, { everyMs: 10, signal: AbortSignal.timeout(60_000) });
    assert.match(console ?? '', /call startContainer failed \(notFound\), request 0af7651916cd43dd$/m);
  });

  it('survives random bytes, random frames and random messages', async () => {
    await using agent = await startAgent();
    const parts = fc.oneof(
      fc.uint8Array({ maxLength: 2000 }),
      fc
        .tuple(fc.nat(3), fc.nat(5), fc.constantFrom(...Object.values(frameKinds)), fc.uint8Array({ maxLength: 300 }))
        .map(([epoch, stream, kind, payload]) => encodeFrame(epoch, stream, kind, payload)),
      fc
        .tuple(fc.nat(3), fc.constantFrom('hello', 'call', 'result'), fc.string(), fc.jsonValue())
        .map(([epoch, t, method, params]) => {
          const message = { t, id: 1, versions: [1], method, params };
          return encodeFrame(epoch, 0, t === 'hello' ? 1 : 2, Buffer.from(JSON.stringify(message)));
        }),
    );
    for (const bytes of fc.sample(parts, 500)) agent.channel.write(bytes);
    await using link = await agent.connect();
    assert.equal(link.welcome.version, protocolVersions[0]);
  });

  it('speaks the older version with a host that has no newer one', async () => {
    await using agent = await startAgent();
    const messages: string[] = [];
    const parser = new FrameParser({
      decide: () => 'take',
      frame: (_, payload) => messages.push(Buffer.from(payload).toString()),
    });
    agent.channel.on('data', (chunk: Buffer) => parser.push(chunk));
    agent.channel.write(encodeFrame(7, 0, frameKinds.hello, Buffer.from('{"t":"hello","versions":[1,9]}')));
    await once(agent.channel, 'data');
    assert.equal((JSON.parse(messages[0] ?? '') as { version?: number }).version, 1);
  });

  it('lists what is in the guest for a host that takes over', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    await link.call('createVolume', { name: 'kept', kind: 'push' }, never);
    const expected = { containers: [], volumes: ['kept'], disks: [] };
    assert.deepEqual(await link.call('list', {}, never), expected);
  });

  it('treats a repeated hello as the same connection, and a new epoch as a new one', async () => {
    await using agent = await startAgent();
    const epochs: number[] = [];
    const parser = new FrameParser({ decide: () => 'take', frame: ({ epoch }) => epochs.push(epoch) });
    agent.channel.on('data', (chunk: Buffer) => parser.push(chunk));
    const hello = (epoch: number) =>
      agent.channel.write(encodeFrame(epoch, 0, frameKinds.hello, Buffer.from('{"t":"hello","versions":[1]}')));
    for (const epoch of [5, 5, 6]) hello(epoch);
    while (epochs.length < 3) await once(agent.channel, 'data');
    assert.deepEqual(epochs, [5, 5, 6]);
  });

  it('accepts calls of many messages, and frees their memory', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    const env = ['A', 'ü', '\u0001'].map((letter) => `${letter}=${letter.repeat(400_000)}`);
    const call = link.call.bind(link) as (method: string, params: unknown, signal: AbortSignal) => Promise<unknown>;
    for (let n = 0; n < 20; n += 1) await call('createVolume', { name: `v${n}`, kind: 'push', env }, never);
    const { agentRssKiB, agentHeapBytes } = await link.call('stats', {}, never);
    assert.ok(agentHeapBytes <= 8 * 1024 * 1024, `${agentHeapBytes} bytes`);
    assert.ok(agentRssKiB <= 16 * 1024, `${agentRssKiB} KiB`);
    await assert.rejects(
      call('createVolume', { name: 'v', env: 'x'.repeat(limits.maxCallBytes) }, never),
      kind('exhausted'),
    );
    assert.ok((await link.call('ping', {}, never)).uptimeMs > 0);
  });

  it('ends with its channel if it is not PID 1', async () => {
    const agent = await startAgent();
    await (await agent.connect())[Symbol.asyncDispose]();
    await agent.exited;
  });

  it('needs at most 4 MiB and little heap when idle', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    const { agentRssKiB, agentHeapBytes } = await link.call('stats', {}, never);
    assert.ok(agentRssKiB <= 4096, `${agentRssKiB} KiB`);
    assert.ok(agentHeapBytes <= 2 * 1024 * 1024, `${agentHeapBytes} bytes`);
  });

  it('measures any number of times without growing', async () => {
    await using agent = await startAgent();
    await using link = await agent.connect();
    const some = async (count: number) => {
      for (let n = 0; n < count; n += 1) await link.call('metrics', {}, never);
      return await link.call('stats', {}, never);
    };
    await assert.rejects(link.call('metrics', { containerId: 'none' }, never), kind('notFound'));
    const before = await some(100);
    const later = await some(1000);
    assert.equal(later.agentFds, before.agentFds);
    assert.ok(later.agentRssKiB <= 4096, `${later.agentRssKiB} KiB`);
    assert.ok(
      later.agentHeapBytes < before.agentHeapBytes + 400_000,
      `${before.agentHeapBytes} to ${later.agentHeapBytes}`,
    );
  });

  describe('dial', () => {
    it('reports a missing listener, and an invalid address', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      const server = await listening(() => {});
      const port = serverPort(server);
      server.close();
      await once(server, 'close');
      const dial = (address: string) => link.call('dial', { stream: link.openStream().id, address, port }, never);
      await assert.rejects(dial('127.0.0.1'), kind('unavailable'));
      await assert.rejects(dial('localhost'), kind('unavailable'));
      await assert.rejects(dial('elsewhere'));
      assert.ok((await link.call('ping', {}, never)).uptimeMs > 0);
    });

    it('connects to a server of this machine that listens on one of the loopback addresses', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      for (const host of ['127.0.0.1', '::1']) {
        const server = await listening((socket) => socket.end(host), host);
        const stream = await dialled(link, server, 'localhost');
        assert.equal(Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString(), host);
        server.close();
      }
    });

    it('carries 8 MiB in both directions unchanged, and the end of each', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      const server = await listening((socket) => socket.pipe(socket));
      const stream = await dialled(link, server);
      const sent = randomBytes(8 * 1024 * 1024);
      stream.end(sent);
      const received = Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>));
      assert.ok(received.equals(sent));
      server.close();
    });

    it('blocks a sender while the host does not read, in bounded memory', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      let written = 0;
      const server = await listening((socket) => {
        const block = Buffer.alloc(1 << 20);
        const more = () => {
          while (written < 256 << 20 && socket.write(block)) written += block.length;
        };
        socket.on('drain', more);
        more();
      });
      const streams = await Promise.all(Array.from({ length: 8 }, () => dialled(link, server)));
      for (let before = -1; before !== written;) {
        before = written;
        await link.call('ping', {}, never);
        await link.call('stats', {}, never);
      }
      const { agentRssKiB } = await link.call('stats', {}, never);
      assert.ok(agentRssKiB < 8 * 1024, `${agentRssKiB} KiB`);
      for (const stream of streams) stream.destroy();
      server.close();
    });

    // The heap is collected at intervals: it varies by 300 KiB, also over tens of thousands of calls.
    it('leaves no descriptor and no memory after any number of calls', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      const server = await listening((socket) => socket.end('x'));
      const some = async (count: number) => {
        for (let n = 0; n < count; n += 1) {
          const stream = await dialled(link, server);
          stream.end();
          stream.resume();
          await once(stream, 'close');
        }
        await link.call('ping', {}, never);
        return await link.call('stats', {}, never);
      };
      const before = await some(100);
      const later = await some(1000);
      assert.equal(later.agentFds, before.agentFds);
      assert.ok(
        later.agentHeapBytes < before.agentHeapBytes + 400_000,
        `${before.agentHeapBytes} to ${later.agentHeapBytes}`,
      );
      server.close();
    });
  });

  describe('push volumes', () => {
    it('refuse a path that leaves the volume, and a volume that grows too large', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push' }, never);
      const { push: id } = await link.call('beginPush', { volume: 'v' }, never);
      const file = (path: string, data: string) => link.call('pushFile', { push: id, path, mode: 0o644, data }, never);
      for (const path of ['../x', '/etc/x', 'a/../../x', 'a//b', '.', 'a/..']) {
        await assert.rejects(file(path, ''), kind('invalid'), path);
      }
      await assert.rejects(file('x', 'no base64!'));
      const part = Buffer.alloc(limits.maxPushPartBytes).toString('base64');
      for (let n = 0; n < limits.maxPushVolumeBytes / limits.maxPushPartBytes; n += 1) await file(`f${n >> 4}`, part);
      await assert.rejects(file('more', 'AAAA'), kind('exhausted'));
      await link.call('abortPush', { push: id }, never);
      assert.deepEqual(await readdir(agent.path('/run/podvm/volumes/v')), []);
    });

    it('show the new tree in one step, in the kubelet’s layout', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push' }, never);
      const root = agent.path('/run/podvm/volumes/v');
      await push(link, 'v', { 'a.txt': 'one', 'deep/b.txt': 'two' });
      assert.equal(await readFile(`${root}/a.txt`, 'utf8'), 'one');
      assert.equal(await readlink(`${root}/deep`), '..data/deep');
      assert.equal((await lstat(`${root}/..data/a.txt`)).mode & 0o777, 0o640);
      const first = await readlink(`${root}/..data`);
      await push(link, 'v', { 'a.txt': 'three', 'c.txt': 'four' });
      const second = await readlink(`${root}/..data`);
      assert.notEqual(second, first);
      assert.deepEqual(new Set(await readdir(root)), new Set(['..data', second, 'a.txt', 'c.txt']));
      assert.equal(await readFile(`${root}/a.txt`, 'utf8'), 'three');
    });

    it('join the parts of a large file in order', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push' }, never);
      const bytes = randomBytes(1024 * 1024);
      const { push: id } = await link.call('beginPush', { volume: 'v' }, never);
      for (let at = 0; at < bytes.length; at += limits.maxPushPartBytes) {
        const data = bytes.subarray(at, at + limits.maxPushPartBytes).toString('base64');
        await link.call('pushFile', { push: id, path: 'big', mode: 0o600, data }, never);
      }
      await link.call('commitPush', { push: id }, never);
      assert.ok((await readFile(agent.path('/run/podvm/volumes/v/big'))).equals(bytes));
    });

    it('give files and directories to the volume group', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push', fsGroup: 2000 }, never);
      await push(link, 'v', { 'd/a.txt': 'one' });
      const root = agent.path('/run/podvm/volumes/v/..data');
      assert.equal((await lstat(`${root}/d/a.txt`)).gid, 2000);
      assert.equal((await lstat(`${root}/d`)).gid, 2000);
    });

    it('give each file its own owner, and directories the owner of the volume', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push', mode: 0o2777, uid: 0, gid: 2000 }, never);
      const { push: id } = await link.call('beginPush', { volume: 'v' }, never);
      const file = { push: id, path: 'd/token', mode: 0o600, uid: 1000, gid: 3000, data: btoa('secret') };
      await link.call('pushFile', file, never);
      await link.call('commitPush', { push: id }, never);
      const root = agent.path('/run/podvm/volumes/v');
      const seen = async (path: string) => {
        const { uid, gid, mode } = await lstat(`${root}/${path}`);
        return [uid, gid, mode & 0o7777];
      };
      assert.deepEqual(await seen('.'), [0, 2000, 0o2777]);
      assert.deepEqual(await seen('..data/d'), [0, 2000, 0o2755]);
      assert.deepEqual(await seen('..data/d/token'), [1000, 3000, 0o600]);
    });

    it('overwrite in place files that are mounted singly', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      await link.call('createVolume', { name: 'v', kind: 'push', inPlace: true }, never);
      const root = agent.path('/run/podvm/volumes/v');
      await push(link, 'v', { hosts: 'a longer text', gone: '' });
      const before = await lstat(`${root}/hosts`);
      await push(link, 'v', { hosts: 'short' });
      assert.equal(await readFile(`${root}/hosts`, 'utf8'), 'short');
      assert.equal((await lstat(`${root}/hosts`)).ino, before.ino);
      assert.deepEqual(await readdir(root), ['hosts']);
      await assert.rejects(push(link, 'v', { 'deep/hosts': '' }), kind('invalid'));
      assert.equal(await readFile(`${root}/hosts`, 'utf8'), 'short');
    });

    it('are deleted by their removal', async () => {
      await using agent = await startAgent();
      await using link = await agent.connect();
      for (const volumeKind of ['push', 'tmpfs'] as const) {
        await link.call('createVolume', { name: volumeKind, kind: volumeKind, sizeLimitBytes: 65_536 }, never);
        await assert.rejects(
          link.call('createVolume', { name: volumeKind, kind: volumeKind }, never),
          kind('alreadyExists'),
        );
        await link.call('removeVolume', { name: volumeKind }, never);
      }
      assert.deepEqual(await readdir(agent.path('/run/podvm/volumes')), []);
    });
  });
});
