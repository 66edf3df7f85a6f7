import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { PodvmError, type ErrorKind } from '#base/errors.ts';
import { ensureHostPaths } from './host-paths.ts';
import { parseManifest } from '../manifest/manifest.ts';

const directory = await mkdtemp(join(tmpdir(), 'host-paths-'));
after(() => rm(directory, { recursive: true }));

const ensure = async (path: string, type: string) => {
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: {
      volumes: [{ name: 'v', hostPath: { path: join(directory, path), type } }],
      containers: [{ name: 'a', image: 'i', volumeMounts: [{ name: 'v', mountPath: '/v' }] }],
    },
  });
  const [pod] = parseManifest(text, 'pod.yaml').pods;
  assert.ok(pod);
  const [container] = pod.spec.containers;
  assert.ok(container);
  await ensureHostPaths(pod, container);
};
const is = (kind: ErrorKind, words: RegExp) => (error: unknown) =>
  error instanceof PodvmError && error.kind === kind && words.test(error.message);

test('ensureHostPaths() accepts existing paths of the requested type', async () => {
  await mkdir(join(directory, 'dir'));
  await writeFile(join(directory, 'file'), '');
  await symlink('dir', join(directory, 'link'));
  for (const type of ['', 'Directory', 'DirectoryOrCreate']) {
    await ensure('dir', type);
    await ensure('link', type);
  }
  for (const type of ['Directory', 'File', 'BlockDevice']) {
    await assert.rejects(ensure('none/at/all', type), is('notFound', /does not exist/));
  }
  for (const type of ['', 'File', 'FileOrCreate']) await ensure('file', type);
  await assert.rejects(
    ensure('file', 'Directory'),
    is('failedPrecondition', /volume v: .*host path .*file is not a dir/),
  );
  await assert.rejects(ensure('file', 'DirectoryOrCreate'), is('failedPrecondition', /is not a directory/));
  await assert.rejects(ensure('dir', 'File'), is('failedPrecondition', /is not a regular file/));
  await assert.rejects(ensure('file', 'BlockDevice'), is('failedPrecondition', /is not a block device/));
  await assert.rejects(ensure('file/below', ''), is('failedPrecondition', /cannot be read: .*ENOTDIR/));
});

test('ensureHostPaths() creates paths of the requested type with their parents, and replaces nothing', async () => {
  await ensure('made/deep/dir', 'DirectoryOrCreate');
  assert.equal((await stat(join(directory, 'made/deep/dir'))).mode & 0o777, 0o755);
  await ensure('unnamed/dir', ''); // as containerd, CRI-O and Docker do
  assert.equal((await stat(join(directory, 'unnamed/dir'))).mode & 0o777, 0o755);
  await ensure('other/file', 'FileOrCreate');
  const made = await stat(join(directory, 'other/file'));
  assert.deepEqual([made.isFile(), made.mode & 0o777, made.size], [true, 0o644, 0]);
  await writeFile(join(directory, 'other/file'), 'kept');
  await ensure('other/file', 'FileOrCreate');
  assert.equal((await stat(join(directory, 'other/file'))).size, 4);
});

test('ensureHostPaths() creates no directory for a missing device', async () => {
  const path = join(directory, 'no-device');
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: {
      volumes: [{ name: 'v', hostPath: { path } }],
      containers: [{ name: 'a', image: 'i', volumeDevices: [{ name: 'v', devicePath: '/dev/x' }] }],
    },
  });
  const [pod] = parseManifest(text, 'pod.yaml').pods;
  const [container] = pod?.spec.containers ?? [];
  assert.ok(pod !== undefined && container !== undefined);
  await assert.rejects(ensureHostPaths(pod, container), is('notFound', /no-device does not exist/));
  await assert.rejects(stat(path), { code: 'ENOENT' });
});
