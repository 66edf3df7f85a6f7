import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { launcherOf } from './launcher.ts';
import { DeleteResponseSchema } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { RuntimeInfoSchema } from './schema/generated/types/introspection_pb.ts';

let bundle: string;
const socket = () => join(bundle, 'run/shim.sock');
before(async () => {
  bundle = await mkdtemp(join(tmpdir(), 'podvm-launcher-'));
  await writeFile(join(bundle, 'launcher'), launcherOf(socket(), '1.2.3'), { mode: 0o755 });
});
after(() => rm(bundle, { recursive: true }));

const launch = async (...args: readonly string[]) =>
  await run('sh', ['./launcher', ...args], {
    cwd: bundle,
    okCodes: 'any',
    env: { PATH: '/usr/bin:/bin', TTRPC_ADDRESS: '/run/containerd/containerd.sock.ttrpc' },
  });

test('start prints only the address, and writes the files that containerd and the daemon read later', async () => {
  const { code, stdout, stderr } = await launch('-namespace', 'k8s.io', '-id', 'x', 'start');
  assert.deepEqual([code, stdout, stderr], [0, `unix://${socket()}`, '']);
  assert.equal(await readFile(join(bundle, 'address'), 'utf8'), stdout);
  assert.equal(await readFile(join(bundle, 'podvm-events'), 'utf8'), '/run/containerd/containerd.sock.ttrpc');
});

interface Features {
  readonly mountOptions: readonly string[];
  readonly linux: {
    readonly namespaces: readonly string[];
    readonly mountExtensions: { readonly idmap: { readonly enabled: boolean } };
  };
}

test('delete reports that the task was killed, and -info describes the runtime', async () => {
  await run('sh', ['-c', './launcher -id x delete >deleted; ./launcher -info >info'], { cwd: bundle });
  const deleted = fromBinary(DeleteResponseSchema, await readFile(join(bundle, 'deleted')));
  assert.equal(deleted.exitStatus, 137);
  const info = fromBinary(RuntimeInfoSchema, await readFile(join(bundle, 'info')));
  assert.deepEqual([info.name, info.version?.version], ['io.containerd.podvm.v2', '1.2.3']);
  assert.deepEqual(Object.keys(info.annotations), ['containerd.io/runtime-allow-mounts']);
  const features = JSON.parse(new TextDecoder().decode(info.features?.value)) as Features;
  assert.ok(features.mountOptions.includes('rro'));
  // Both are what containerd asks for before it makes a pod with users of its own.
  assert.ok(features.linux.namespaces.includes('user'));
  assert.equal(features.linux.mountExtensions.idmap.enabled, true);
});

test('an unknown action is an error, with a message', async () => {
  const { code, stdout, stderr } = await launch('explode');
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /podvm: unknown: explode/);
});

test('start waits until the daemon serves containerd', async () => {
  await mkdir(dirname(socket()));
  const starting = launch('start');
  const isWanted = async () => ((await isThere(`${socket()}.wanted`)) ? true : undefined);
  await poll(isWanted, { everyMs: 20, signal: AbortSignal.timeout(60_000) });
  const server = createServer().listen(socket());
  assert.equal((await starting).stdout, `unix://${socket()}`);
  server.close();
});
