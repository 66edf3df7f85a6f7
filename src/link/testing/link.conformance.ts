import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import { protocolVersions } from '#wire/messages.ts';
import type { Link, LinkStream } from '../link.ts';

/** A guest whose agent answers. Disposing ends it. */
export interface GuestHarness extends AsyncDisposable {
  /** Opens a link; each call begins another connection. */
  connect(): Promise<Link>;
  /** Listens on a port of the guest's loopback address, and passes each connection to the listener. */
  listen(onConnection: (connection: Duplex) => void): Promise<number>;
}

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};
const bytesOf = async (stream: Duplex) => Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>));

/** The suite that every guest's agent passes, by theme; containers have a suite of their own. */
export function describeGuest(name: string, open: () => Promise<GuestHarness>): void {
  describe(`the ${name} guest`, { timeout: 120_000 }, () => {
    describe('call()', () => describeCalls(open));
    describe('configure() and connect()', () => describeConfiguring(open));
    describe('streams', () => describeStreams(open));
    describe('examine() and ask()', () => describeExamining(open));
    describe('push volumes', () => describePushes(open));
  });
}

type Open = () => Promise<GuestHarness>;

function describeCalls(open: Open): void {
  test('answers with its uptime and protocol version', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    assert.equal(link.welcome.version, protocolVersions[0]);
    assert.equal(link.welcome.configured, false);
    const { uptimeMs } = await link.call('ping', {}, soon());
    assert.ok(uptimeMs >= 0);
    assert.ok((await link.call('ping', {}, soon())).uptimeMs >= uptimeMs);
  });

  test('refuses unknown methods and invalid parameters', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const call = link.call.bind(link) as (method: string, params: unknown, signal: AbortSignal) => Promise<unknown>;
    await assert.rejects(call('constructor', {}, soon()), kind('unsupported'));
    await assert.rejects(call('detachDisk', { serial: '../x' }, soon()), kind('internal'));
    await assert.rejects(call('createContainer', null, soon()), kind('internal'));
    await link.call('ping', {}, soon());
  });

  test('reports missing containers, volumes and pushes as such', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const containerId = 'none';
    const stdio = { stdin: 0, stdout: 0, stderr: 0 };
    const missing = [
      () => link.call('startContainer', { id: 'none' }, soon()),
      () => link.call('signalContainer', { id: 'none', signal: 9 }, soon()),
      () => link.call('updateContainer', { id: 'none', resources: {} }, soon()),
      () => link.call('readFile', { containerId, path: '/x', maxBytes: 1 }, soon()),
      () => link.call('startExec', { containerId, execId: 'x', args: ['x'], tty: false, stdio }, soon()),
      () => link.call('signalExec', { containerId, execId: 'x', signal: 9 }, soon()),
      () => link.call('attach', { containerId, stdio }, soon()),
      () => link.call('resize', { containerId, columns: 80, rows: 25 }, soon()),
      () => link.call('metrics', { containerId }, soon()),
      () => link.call('beginPush', { volume: 'none' }, soon()),
      () => link.call('commitPush', { push: 1 }, soon()),
      () => link.call('growDisk', { serial: 'none', sizeBytes: 1 }, soon()),
      () => link.call('createVolume', { name: 'v', kind: 'scratch', disk: 'none' }, soon()),
    ];
    for (const call of missing) await assert.rejects(call(), kind('notFound'), String(call));
    await link.call('removeContainer', { id: 'none' }, soon()); // succeeds: it is already gone
    await link.call('removeVolume', { name: 'none' }, soon());
    await link.call('detachDisk', { serial: 'none' }, soon());
    await link.call('abortPush', { push: 1 }, soon());
  });

  test('answers many calls at once, each its own', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const names = Array.from({ length: 50 }, (_, at) => `none-${at}`);
    await Promise.all(
      names.map(async (volume) => {
        await assert.rejects(link.call('beginPush', { volume }, soon()), (error) => {
          assert.match(String(error), new RegExp(`${volume}:`));
          return true;
        });
      }),
    );
  });

  test('measures itself', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const { agentRssKiB, agentHeapBytes, agentFds, containers } = await link.call('stats', {}, soon());
    assert.ok(agentRssKiB > 0 && agentHeapBytes > 0 && agentFds > 0);
    assert.deepEqual(containers, []);
  });

  test('rejects pending and later calls when the link is disposed of', async () => {
    await using guest = await open();
    const link = await guest.connect();
    const stream = link.openStream();
    stream.on('error', () => {});
    const calling = assert.rejects(link.call('ping', {}, soon()), kind('unavailable'));
    await link[Symbol.asyncDispose]();
    await calling;
    await assert.rejects(link.call('ping', {}, soon()), kind('unavailable'));
    assert.throws(() => link.openStream(), kind('unavailable'));
    assert.equal(stream.destroyed, true);
    assert.equal(kindOf(await link.closed), 'unavailable');
    await link[Symbol.asyncDispose]();
  });
}

function describeConfiguring(open: Open): void {
  test('is connected only when it is configured', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const params = { etcHosts: '', resolvConf: '', sysctls: {}, network: null, resources: {} };
    await assert.rejects(link.call('connect', params, soon()), kind('failedPrecondition'));
  });
}

async function dialled(link: Link, port: number): Promise<LinkStream> {
  const stream = link.openStream();
  stream.on('error', () => {});
  await link.call('dial', { stream: stream.id, address: '127.0.0.1', port }, soon());
  return stream;
}

function describeStreams(open: Open): void {
  test('dial() fails without a listener', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const stream = link.openStream();
    stream.on('error', () => {});
    const dialling = link.call('dial', { stream: stream.id, address: '127.0.0.1', port: 1 }, soon());
    await assert.rejects(dialling, kind('unavailable'));
  });

  test('carry more than any window both ways, byte for byte, and the end of each half', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const port = await guest.listen((connection) => connection.pipe(connection));
    const stream = await dialled(link, port);
    const sent = randomBytes(3 * limits.streamWindowBytes + 7);
    stream.end(sent);
    assert.ok((await bytesOf(stream)).equals(sent));
  });

  test('end one half and leave the other', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const port = await guest.listen((connection) => {
      let asked = '';
      connection.on('data', (bytes: Buffer) => (asked += String(bytes)));
      connection.once('end', () => connection.end(`you said ${asked}`));
    });
    const stream = await dialled(link, port);
    stream.end('hello');
    assert.equal(String(await bytesOf(stream)), 'you said hello');
  });

  test('hold the guest back while the host does not read', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const begun = Promise.withResolvers<Duplex>();
    const port = await guest.listen(begun.resolve);
    const stream = await dialled(link, port);
    const connection = await begun.promise;
    const chunk = Buffer.alloc(1024 * 1024);
    const limitBytes = 64 * chunk.length; // more than windows and socket buffers hold
    let written = 0;
    while (connection.write(chunk) && written < limitBytes) written += chunk.length;
    await link.call('ping', {}, soon()); // other calls still work
    assert.ok(written < limitBytes, `${written} bytes were taken`);
    assert.ok(stream.readableLength <= 2 * limits.streamWindowBytes, `${stream.readableLength} bytes wait`);
    stream.destroy();
  });

  test('are closed on the other side when they are reset', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const begun = Promise.withResolvers<Duplex>();
    const port = await guest.listen(begun.resolve);
    const stream = await dialled(link, port);
    const connection = await begun.promise;
    connection.on('error', () => {});
    connection.resume();
    const closed = once(connection, 'close', { signal: soon() });
    connection.once('end', () => connection.end());
    stream.destroy();
    await closed;
  });

  test('are refused under a number in use', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const port = await guest.listen(() => {});
    const stream = await dialled(link, port);
    const again = link.call('dial', { stream: stream.id, address: '127.0.0.1', port }, soon());
    await assert.rejects(again, kind('alreadyExists'));
    stream.destroy();
  });
}

function describeExamining(open: Open): void {
  test('says what the guest knows, and refuses unknown containers', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    await link.call('createVolume', { name: 'v', kind: 'push' }, soon());
    const beforeMs = Date.now();
    const { realtimeMs } = await link.call('examine', {}, soon());
    assert.ok(Math.abs(realtimeMs - beforeMs) < 30_000, `${realtimeMs} instead of ${beforeMs}`);
    await assert.rejects(link.call('examineMounts', { containerId: 'none' }, soon()), kind('notFound'));
  });

  test('a question to a port without a listener is refused', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const question = { address: '127.0.0.1', port: 9, data: 'AAAA', timeoutMs: 10_000 };
    await assert.rejects(link.call('ask', question, soon()), /: ECONNREFUSED$/);
  });
}

function describePushes(open: Open): void {
  test('are made once under a name, and again when they are gone', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    const create = () => link.call('createVolume', { name: 'v', kind: 'push' }, soon());
    await create();
    await assert.rejects(create(), kind('alreadyExists'));
    await link.call('removeVolume', { name: 'v' }, soon());
    await create();
  });

  test('are listed, for a host that takes over', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    await link.call('createVolume', { name: 'kept', kind: 'push' }, soon());
    assert.deepEqual(await link.call('list', {}, soon()), { containers: [], volumes: ['kept'], disks: [] });
  });

  test('take files in parts, but none that lead out of the volume or come without a push', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    await link.call('createVolume', { name: 'v', kind: 'push' }, soon());
    const { push } = await link.call('beginPush', { volume: 'v' }, soon());
    const file = (path: string, data = 'AAAA') => link.call('pushFile', { push, path, mode: 0o644, data }, soon());
    for (const path of ['../x', '/etc/x', 'a/../../x', 'a//b', '.', 'a/..'])
      await assert.rejects(file(path), kind('invalid'), path);
    await assert.rejects(file('x', 'no base64!'));
    for (const path of ['a', 'a', 'deep/b']) await file(path);
    await link.call('commitPush', { push }, soon());
    await assert.rejects(file('late'), kind('notFound'));
    await assert.rejects(link.call('commitPush', { push }, soon()), kind('notFound'));
  });

  test('take no more than a volume may hold', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    await link.call('createVolume', { name: 'v', kind: 'push' }, soon());
    const { push } = await link.call('beginPush', { volume: 'v' }, soon());
    const data = Buffer.alloc(limits.maxPushPartBytes).toString('base64');
    const file = (path: string) => link.call('pushFile', { push, path, mode: 0o644, data }, soon());
    for (let n = 0; n < limits.maxPushVolumeBytes / limits.maxPushPartBytes; n += 1) await file(`f${n >> 4}`);
    await assert.rejects(file('more'), kind('exhausted'));
  });

  test('are the only volumes that files are pushed to', async () => {
    await using guest = await open();
    await using link = await guest.connect();
    await link.call('createVolume', { name: 'memory', kind: 'tmpfs', sizeLimitBytes: 65_536 }, soon());
    await assert.rejects(link.call('beginPush', { volume: 'memory' }, soon()), kind('invalid'));
    await assert.rejects(link.call('createVolume', { name: 'v', kind: 'scratch' }, soon()), kind('invalid'));
  });
}
