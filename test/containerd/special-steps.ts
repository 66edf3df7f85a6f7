import assert from 'node:assert/strict';
import { glob, mkdir, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { erofsHandler } from './containerd-node.ts';
import { layeredImage, Pod } from './pod.ts';
import { execSync, type Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** What few pods ask for. */
export const specialSteps: Steps<Tour> = [
  ['a privileged container may mount file systems in its machine, and sees no device of the host', isPrivileged],
  ['a block device of the host is one of the container, for reading and writing or for reading only', hasBlockDevice],
];

/** What containerd has from version 2 on. */
export const newerSteps: Steps<Tour> = [
  ['an image is a volume', mountsImage],
  ['the layers of the erofs snapshotter are one file system', hasErofsLayers],
  ['a pod has users of its own', hasOwnUsers],
];

async function isPrivileged({ crictl, work }: Tour): Promise<void> {
  const security = { linux: { security_context: { privileged: true } } };
  const pod = await Pod.run(crictl, work, 'privileged', 'podvm', security);
  const id = await pod.start('main', 'sleep 1000', security);
  await execSync(crictl, id, 'sh', '-c', 'mkdir /m && mount -t tmpfs none /m && echo kept >/m/file');
  assert.equal(await execSync(crictl, id, 'cat', '/m/file'), 'kept');
  assert.equal(await execSync(crictl, id, 'sh', '-c', 'ls /dev | grep -c -E "^(kvm|loop)" || true'), '0');
  await pod.remove();
}

async function hasBlockDevice({ crictl, pod, work }: Tour): Promise<void> {
  const path = join(work, 'block');
  await using file = await open(path, 'w+');
  await file.truncate(16 * 1024 * 1024);
  const device = (await run('losetup', ['--find', '--show', path])).stdout.trim();
  try {
    const start = async (name: string, permissions: string, script: string) =>
      await pod.start(name, script, { devices: [{ host_path: device, container_path: '/dev/data', permissions }] });
    const writes = await start('writes', 'rwm', 'printf words | dd of=/dev/data conv=fsync; exit 3');
    assert.equal((await pod.ended(writes)).exitCode, 3);
    await crictl.run('rm', writes);
    const reads = await start('reads', 'r', 'head -c 5 /dev/data; (echo x >/dev/data) 2>/dev/null && exit 1; exit 4');
    assert.equal((await pod.ended(reads)).exitCode, 4);
    assert.equal(await crictl.run('logs', reads), 'words');
    await crictl.run('rm', reads);
  } finally {
    await run('losetup', ['--detach', device]);
  }
  assert.equal((await readFile(path)).subarray(0, 5).toString(), 'words');
}

async function mountsImage({ crictl, pod }: Tour): Promise<void> {
  const mounts = [{ container_path: '/image', image: { image: layeredImage }, readonly: true }];
  const script = 'cat /image/added; test -e /image/gone && exit 1; touch /image/x 2>/dev/null && exit 2; exit 5';
  const id = await pod.start('image', script, { mounts });
  assert.equal((await pod.ended(id)).exitCode, 5);
  assert.equal(await crictl.run('logs', id), 'upper');
  await crictl.run('rm', id);
}

async function hasErofsLayers({ crictl, work }: Tour): Promise<void> {
  const pod = await Pod.run(crictl, work, 'erofs', erofsHandler);
  const snapshots = join(work, 'root/io.containerd.snapshotter.v1.erofs/snapshots');
  for (const name of ['first', 'second']) {
    const script = 'cat /added; test ! -e /gone && echo >/mine && exit 9';
    const id = await pod.start(name, script, { image: { image: layeredImage } });
    assert.equal((await pod.ended(id)).exitCode, 9);
    assert.equal(await crictl.run('logs', id), 'upper');
    await crictl.run('rm', id);
  }
  const files = await Array.fromAsync(glob('*/layer.erofs', { cwd: snapshots }));
  assert.ok(files.length >= 2, 'containerd has made a file of each layer');
  const mounted = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => line.includes(work));
  assert.deepEqual(
    mounted.filter((line) => line.includes(' - erofs ')),
    [],
    'no layer is mounted on the host',
  );
  await pod.remove();
}

async function hasOwnUsers({ crictl, work }: Tour): Promise<void> {
  const ids = [{ host_id: 1_000_000, container_id: 0, length: 65_536 }];
  const users = { namespace_options: { userns_options: { mode: 0, uids: ids, gids: ids } } };
  const more = { linux: { security_context: users } };
  const pod = await Pod.run(crictl, work, 'users', 'podvm', more);
  const shared = join(work, 'users-shared');
  await mkdir(shared);
  const mounts = [{ host_path: shared, container_path: '/shared', uidMappings: ids, gidMappings: ids }];
  const id = await pod.start('main', 'sleep 1000', { ...more, mounts });
  assert.match(await execSync(crictl, id, 'cat', '/proc/self/uid_map'), /^\s*0\s+1000000\s+65536$/);
  assert.equal(await execSync(crictl, id, 'stat', '-c', '%u:%g', '/bin'), '0:0');
  await execSync(crictl, id, 'sh', '-c', 'touch /shared/file && chown 7:8 /shared/file');
  const { uid, gid } = await stat(join(shared, 'file'));
  assert.deepEqual([uid, gid], [7, 8]);
  await pod.remove();
}
