import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, mkdtempDisposable, readFile, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '#host/wait.ts';
import { createFileServers, fileServersOf } from '#storage/file-server.ts';
import { openHostSource } from '#storage/host-source.ts';
import { describeFileServers } from '#storage/testing/storage.conformance.ts';
import { readAssets, whyNoVm } from './node.ts';

const skip = await whyNoVm();

describeFileServers('real', openServers, skip);

test('a file server continues when its bubblewrap is killed alone', { skip, timeout: 60_000 }, async () => {
  await using place = await openServers();
  await using shared = await mkdtempDisposable(join(tmpdir(), 'podvm-served-'));
  const { channel, client } = await place.connect();
  await using source = await openHostSource(shared.path);
  await using server = await place.files.serve(
    {
      ...{ channel, source, access: 'readWrite', propagation: 'private', mapsUsers: false },
      ...{ owner: 'sb-alone', name: 'share-1', logPath: join(shared.path, 'log') },
      confine: async () => ({ [Symbol.asyncDispose]: async () => {} }),
    },
    AbortSignal.timeout(20_000),
  );
  let hasEnded = false;
  const ended = server.ended.then(() => (hasEnded = true));
  // Until its program runs, it waits for its bubblewrap.
  const serves = async () => ((await fileServersOf('sb-alone')).length === 1 ? true : undefined);
  assert.ok(await poll(serves, { everyMs: 20, signal: AbortSignal.timeout(30_000) }));
  const status = await readFile(`/proc/${server.record.pid}/status`, 'utf8');
  const parent = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]);
  assert.equal(await readFile(`/proc/${parent}/comm`, 'utf8'), 'bwrap\n');
  process.kill(parent, 'SIGKILL');
  await delay(300); // its end would be reported by then
  assert.equal(hasEnded, false);
  assert.equal((await fileServersOf('sb-alone')).length, 1);
  client.destroy();
  await ended;
  assert.deepEqual(await fileServersOf('sb-alone'), []);
});

async function openServers() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-servers-'));
  const path = join(directory, 'socket');
  const listener = createServer().listen(path);
  await once(listener, 'listening');
  return {
    files: createFileServers((await readAssets()) ?? assert.fail('no assets')),
    async connect() {
      const connected = once(listener, 'connection') as Promise<[Socket]>;
      const channel = connect(path);
      const [client] = await connected;
      if (channel.connecting) await once(channel, 'connect');
      return { channel, client };
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      await rm(directory, { recursive: true });
    },
  };
}
