import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { within } from '#host/wait.ts';
import type { HostMount } from '../volume/host-mode.ts';
import { createKubeletMode, type KubeletModeParts } from './kubelet-mode.ts';

const uid = '7f3f6a4e-7b1c-4a41-8f0c-6d0f0a8f3f10';
const signal = new AbortController().signal;
let root = '';
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'podvm-kubelet-'));
});
afterEach(() => rm(root, { recursive: true }));

const at = (path: string) => join(root, 'pods', uid, path);
const mountOf = (path: string): HostMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/mnt',
  readOnly: true,
});

/** Writes like kubelet's atomic writer. */
async function write(volume: string, version: string, files: Record<string, string>): Promise<string> {
  const directory = at(`volumes/kubernetes.io~configmap/${volume}`);
  await mkdir(join(directory, version), { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, version, name), text);
  await symlink(version, join(directory, '..data_tmp'));
  await rename(join(directory, '..data_tmp'), join(directory, '..data'));
  return directory;
}

/** A guest that records its calls, and shows the files of the newest push. */
function createGuest() {
  const calls: string[] = [];
  const params: Record<string, unknown>[] = [];
  let files: Record<string, string> = {};
  let shown: Record<string, string> = {};
  let wake = Promise.withResolvers<void>();
  let failing: string | undefined;
  const call = async (method: string, given: object) => {
    const said: Record<string, unknown> = { ...given };
    calls.push(method);
    params.push(said);
    if (method === failing) throw new PodvmError('exhausted', 'no room');
    if (method === 'beginPush') files = {};
    if (method === 'pushFile') files[String(said['path'])] = Buffer.from(String(said['data']), 'base64').toString();
    if (method === 'commitPush') {
      shown = files;
      wake.resolve();
      wake = Promise.withResolvers();
    }
    return { push: 1 };
  };
  return {
    call: call as unknown as KubeletModeParts['guest']['call'], // SAFE: the mode only calls what is answered here
    calls,
    paramsOf: (method: string) => params[calls.lastIndexOf(method)],
    fail: (method: string | undefined) => void (failing = method),
    async shows(wanted: Record<string, string>) {
      for (;;) {
        if (JSON.stringify(shown) === JSON.stringify(wanted)) return;
        if (
          (await within(
            wake.promise.then(() => true),
            { ms: 60_000 },
          )) !== true
        )
          assert.fail(`the guest shows ${JSON.stringify(shown)}`);
      }
    },
  };
}

function open() {
  const guest = createGuest();
  const trees = { maxBytes: 1024, maxFiles: 16, maxDepth: 4 };
  const watchTiming = { settleMs: 1, recheckMs: 60_000, retryMs: 5 };
  return { guest, mode: createKubeletMode({ podUid: uid, guest, trees, log: silentLog, watchTiming }) };
}

test('find() recognises only what a kubelet keeps for this pod', async () => {
  await using mode = open().mode;
  assert.equal(await mode.find(mountOf('/srv/data'), signal), undefined);
  assert.equal(await mode.find(mountOf(`/var/lib/kubelet/pods/other/etc-hosts`), signal), undefined);
});

test('attach() sends a configMap once for all containers, and each new version when it appears', async () => {
  const { guest, mode } = open();
  await using _mode = mode;
  const directory = await write('app', '..1', { key: 'one' });
  const found = await mode.find(mountOf(directory), signal);
  assert.deepEqual([found?.mode, found?.key], ['push', 'app ']);
  const attached = await Promise.all([found?.attach('host_1', signal), found?.attach('host_2', signal)]);
  assert.deepEqual(
    attached.map((each) => each?.guest),
    [{ volume: 'app' }, { volume: 'app' }],
  );
  assert.equal(guest.calls.filter((method) => method === 'createVolume').length, 1);
  await guest.shows({ key: 'one' });
  await write('app', '..2', { key: 'two', other: 'x' });
  await guest.shows({ key: 'two', other: 'x' });
});

test('find() sends changes before another container mounts the volume', async () => {
  const { guest, mode } = open();
  await using _mode = mode;
  const path = at('etc-hosts');
  await mkdir(at(''), { recursive: true });
  await writeFile(path, 'one');
  const found = await mode.find(mountOf(path), signal);
  const attached = await found?.attach('host_1', signal);
  assert.deepEqual(attached?.guest, { volume: 'etc-hosts.file', subPath: 'etc-hosts' });
  assert.equal(guest.paramsOf('createVolume')?.['inPlace'], true);
  await writeFile(path, 'two');
  await mode.find(mountOf(path), signal);
  await guest.shows({ 'etc-hosts': 'two' });
  const pushes = guest.calls.filter((method) => method === 'commitPush').length;
  await writeFile(at('etc-hosts.new'), 'two');
  await rename(at('etc-hosts.new'), path); // at no moment is it empty, which would be sent
  await mode.find(mountOf(path), signal);
  assert.equal(guest.calls.filter((method) => method === 'commitPush').length, pushes);
});

test('attach() refuses a volume that is too large by name, and leaves nothing in the guest', async () => {
  const { guest, mode } = open();
  await using _mode = mode;
  const directory = await write('app', '..1', { key: '' });
  await truncate(join(directory, '..1/key'), 2 * 1024 ** 3);
  const found = await mode.find(mountOf(directory), signal);
  await assert.rejects(
    found?.attach('host_1', signal) ?? Promise.resolve(),
    (error: unknown) =>
      error instanceof PodvmError &&
      error.kind === 'exhausted' &&
      /volume app: .* 1024 bytes, got 2147483648/.test(error.message),
  );
  assert.deepEqual(guest.calls, []);
});

test('attach() works after a failed call, which leaves nothing in the guest', async () => {
  const { guest, mode } = open();
  await using _mode = mode;
  const found = await mode.find(mountOf(await write('app', '..1', { key: 'one' })), signal);
  guest.fail('pushFile');
  await assert.rejects(found?.attach('host_1', signal) ?? Promise.resolve(), { kind: 'exhausted' });
  assert.equal(guest.calls.at(-1), 'removeVolume');
  guest.fail(undefined);
  await found?.attach('host_1', signal);
  await guest.shows({ key: 'one' });
});

test('attach() makes an emptyDir in the guest with the kubelet’s attributes, and keeps it across containers', async () => {
  const { guest, mode } = open();
  await using _mode = mode;
  const path = at('volumes/kubernetes.io~empty-dir/cache');
  await mkdir(path, { recursive: true, mode: 0o755 });
  for (const name of ['host_1', 'host_2']) {
    const found = await mode.find(mountOf(path), signal);
    const attached = await found?.attach(name, signal);
    assert.deepEqual(attached?.guest, { volume: 'cache' });
    await attached?.[Symbol.asyncDispose]();
  }
  assert.deepEqual(guest.calls, ['createVolume']);
  assert.equal(guest.paramsOf('createVolume')?.['kind'], 'scratch');
  assert.equal(guest.paramsOf('createVolume')?.['mode'], 0o755);
});
