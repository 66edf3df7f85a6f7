import assert from 'node:assert/strict';
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { kubeletVolumeOf } from './kubelet-volume.ts';

const uid = '0b1e5a3c-2f5f-4f0e-9d68-1d1f7b3f0a11';
const isRoot = process.getuid?.() === 0;

describe('kubeletVolumeOf()', { skip: isRoot ? false : 'mounts need root' }, () => {
  let root = '';
  let mounted: string[] = [];
  const at = (path: string) => join(root, 'pods', uid, path);
  const make = async (path: string) => {
    await mkdir(at(path), { recursive: true });
    return at(path);
  };
  const mount = async (...argv: string[]) => {
    await run('mount', argv);
    mounted.push(argv.at(-1) ?? '');
  };
  /** Mounts as kubelet's SetupSubpath does. */
  const bindSubPath = async (source: string, path: string, isFile = false) => {
    await mkdir(dirname(at(path)), { recursive: true });
    if (isFile) await writeFile(at(path), '');
    else await mkdir(at(path));
    await mount('--bind', at(source), at(path));
    return at(path);
  };

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'podvm-kubelet-'));
  });
  afterEach(async () => {
    for (const point of mounted.toReversed()) await run('umount', [point]);
    mounted = [];
    await rm(root, { recursive: true });
  });

  it('distinguishes an emptyDir on disk from one in memory, with owner, mode and size', async () => {
    const disk = await make('volumes/kubernetes.io~empty-dir/disk');
    await chown(disk, 0, 2000);
    await chmod(disk, 0o2777);
    const owner = { mode: 0o2777, uid: 0, gid: 2000 };
    assert.deepEqual(await kubeletVolumeOf(disk, uid), { kind: 'scratch', name: 'disk', owner });

    const memory = await make('volumes/kubernetes.io~empty-dir/memory');
    await mount('-t', 'tmpfs', '-o', 'size=8m,mode=1777', 'tmpfs', memory);
    assert.deepEqual(await kubeletVolumeOf(memory, uid), {
      kind: 'tmpfs',
      name: 'memory',
      owner: { mode: 0o1777, uid: 0, gid: 0 },
      sizeLimitBytes: 8 << 20,
    });
  });

  it('finds the location of a sub-path in an emptyDir', async () => {
    await make('volumes/kubernetes.io~empty-dir/disk/a/b');
    const path = await bindSubPath('volumes/kubernetes.io~empty-dir/disk/a/b', 'volume-subpaths/disk/main/0');
    const found = await kubeletVolumeOf(path, uid);
    assert.ok(found?.kind === 'scratch');
    assert.deepEqual([found.name, found.subPath, found.owner.mode & 0o777], ['disk', 'a/b', 0o755]);

    const memory = await make('volumes/kubernetes.io~empty-dir/memory');
    await mount('-t', 'tmpfs', 'tmpfs', memory);
    await mkdir(join(memory, 'deep/er'), { recursive: true });
    const inMemory = await bindSubPath(
      'volumes/kubernetes.io~empty-dir/memory/deep/er',
      'volume-subpaths/memory/main/1',
    );
    const other = await kubeletVolumeOf(inMemory, uid);
    assert.ok(other?.kind === 'tmpfs');
    assert.deepEqual([other.name, other.subPath], ['memory', 'deep/er']);
  });

  it('uses a sub-path of a configMap as it was mounted', async () => {
    const volume = await make('volumes/kubernetes.io~configmap/app/..1');
    await writeFile(join(volume, 'key'), 'value');
    const path = await bindSubPath('volumes/kubernetes.io~configmap/app/..1/key', 'volume-subpaths/app/main/2', true);
    assert.deepEqual(await kubeletVolumeOf(path, uid), {
      kind: 'push',
      name: 'app.main.2',
      hostPath: path,
      file: '2',
      isLive: false,
    });
    const whole = await kubeletVolumeOf(dirname(volume), uid);
    assert.deepEqual(whole, { kind: 'push', name: 'app', hostPath: dirname(volume), isLive: true });
  });

  it('returns undefined for a sub-path of another volume', async () => {
    await make('volumes/kubernetes.io~csi/pv/mount/a');
    const path = await bindSubPath('volumes/kubernetes.io~csi/pv/mount/a', 'volume-subpaths/data/main/0');
    assert.equal(await kubeletVolumeOf(path, uid), undefined);
  });

  it('reports a missing volume', async () => {
    await assert.rejects(
      kubeletVolumeOf(at('volumes/kubernetes.io~empty-dir/none'), uid),
      (error: unknown) => error instanceof PodvmError && error.kind === 'internal' && /none/.test(error.message),
    );
  });
});
