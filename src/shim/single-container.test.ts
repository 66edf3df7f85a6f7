import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { poll } from '#host/wait.ts';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from './schema/generated/types/task/task_pb.ts';
import { singleSpec } from './testing/bundles.ts';
import { openShim } from './testing/served-shim.ts';

const soon = { ms: 20_000 };
const verbs = Task.method;

test('a container without a pod has a machine of its own, from create to delete', async () => {
  await using shim = await openShim();
  const { client } = shim;
  const io = await shim.io('box');
  const guestId = await shim.container('box-1', singleSpec, io.paths);
  assert.ok(shim.parts.alive.has('machine'));
  assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.RUNNING);
  const { stats } = await client.call(verbs.stats, { id: 'box-1' }, soon);
  assert.equal(stats?.typeUrl, 'io.containerd.cgroups.v2.Metrics');
  const create = shim.parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  assert.ok(create !== undefined);
  const { stdout, stderr } = create.params['stdio'] as { stdout: number; stderr: number };
  shim.parts.guest.stream(stdout).end('done\n');
  shim.parts.guest.stream(stderr).end();
  const waiting = client.call(verbs.wait, { id: 'box-1' }, soon);
  shim.exit(guestId, 42);
  assert.equal((await waiting).exitStatus, 42);
  assert.equal(await io.stdout(), 'done\n');
  assert.equal((await client.call(verbs.delete, { id: 'box-1' }, soon)).exitStatus, 42);
  assert.deepEqual([...shim.parts.alive], []);
  await poll(() => Promise.resolve(shim.told.length >= 4 || undefined), { everyMs: 5 });
  assert.deepEqual(
    shim.told,
    ['create', 'start', 'exit', 'delete'].map((topic) => `/tasks/${topic} box-1`),
  );
});

test('a container without a pod survives a replacement of the daemon, and an exit meanwhile is told', async () => {
  await using shim = await openShim();
  const { client } = shim;
  const guestId = await shim.container('box-1', singleSpec);
  await shim.end();
  await shim.next();
  assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.RUNNING);
  await shim.end();
  shim.exit(guestId, 3);
  await shim.next();
  assert.equal((await client.call(verbs.wait, { id: 'box-1' }, soon)).exitStatus, 3);
  assert.equal((await client.call(verbs.delete, { id: 'box-1' }, soon)).exitStatus, 3);
  assert.ok(!shim.parts.alive.has('machine'));
});

test('a container without a pod has a record that builds which know only pods leave alone', async () => {
  await using shim = await openShim();
  const versions = async () => {
    const root = join(shim.directory, 'sandboxes');
    const ids = await readdir(root);
    const texts = await Promise.all(ids.map((id) => readFile(join(root, id, 'sandbox.json'), 'utf8')));
    return texts.map((text) => (JSON.parse(text) as { version: number }).version);
  };
  await shim.container('box-1', singleSpec);
  assert.deepEqual(await versions(), [4]);
  await shim.end();
  await shim.next();
  assert.deepEqual(await versions(), [4], 'the next process has lowered it');
});

test('a container without a pod that containerd has deleted meanwhile is removed', async () => {
  await using shim = await openShim();
  await shim.container('box-1', singleSpec);
  await shim.end();
  await rm(await shim.bundle('box-1', singleSpec), { recursive: true });
  await shim.next();
  assert.ok(!shim.parts.alive.has('machine'));
  await assert.rejects(shim.client.call(verbs.state, { id: 'box-1' }, soon), { kind: 'notFound' });
});

test('a container without a pod whose bundle is removed ends with its machine', async () => {
  await using shim = await openShim();
  await shim.container('box-1', singleSpec);
  await rm(await shim.bundle('box-1', singleSpec), { recursive: true });
  const isGone = async () => {
    const state = await shim.client.call(verbs.state, { id: 'box-1' }, soon).catch(() => undefined);
    return state === undefined && shim.parts.alive.size === 0 ? true : undefined;
  };
  assert.ok(await poll(isGone, { everyMs: 20, signal: AbortSignal.timeout(20_000) }));
});

test('a container without a pod that cannot be created leaves no machine, and its id is free', async () => {
  await using shim = await openShim();
  const namespaces = singleSpec.linux.namespaces.filter(({ type }) => type !== 'network');
  await assert.rejects(shim.container('box-1', { ...singleSpec, linux: { ...singleSpec.linux, namespaces } }), {
    kind: 'failedPrecondition',
    message: /namespaces: network\. Run it with runc, or without the host's namespaces/,
  });
  const logged = { stdout: 'file:///var/log/box' };
  await assert.rejects(shim.container('box-1', singleSpec, logged), { kind: 'unsupported' });
  assert.throws(() => shim.parts.guest, /no machine yet/, 'neither costs a machine');
  shim.parts.before = async (step) => {
    if (step === 'call createContainer') throw new Error('the link is torn');
  };
  await assert.rejects(shim.container('box-1', singleSpec), { kind: 'internal' });
  assert.ok(!shim.parts.alive.has('machine'));
  shim.parts.before = () => Promise.resolve();
  await shim.container('box-1', singleSpec);
});
