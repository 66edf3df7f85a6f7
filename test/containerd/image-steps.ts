import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { briefImage, layeredImage } from './pod.ts';
import type { Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** Images of the overlayfs snapshotter. */
export const imageSteps: Steps<Tour> = [
  ['the layers of an image are one file system', mergesLayers],
  ['the file of an image is made once for all containers, and removed with its layers', keepsFile],
];

async function mergesLayers({ crictl, pod }: Tour): Promise<void> {
  const image = { image: { image: layeredImage } };
  for (const name of ['first', 'second']) {
    const id = await pod.start(name, 'cat /added; test ! -e /gone && echo >/mine && exit 9', image);
    assert.equal((await pod.ended(id)).exitCode, 9);
    await crictl.run('rm', id);
  }
}

async function keepsFile({ crictl, pod, root, replaceDaemon }: Tour): Promise<void> {
  const snapshots = join(root, 'snapshots');
  const files = async () => (await readdir(snapshots)).filter((name) => name.endsWith('.erofs'));
  const before = await files();
  const image = { image: { image: briefImage } };
  const runs = async (name: string) => {
    const id = await pod.start(name, 'cat /brief', image);
    assert.equal((await pod.ended(id)).exitCode, 0);
    assert.equal(await crictl.run('logs', id), 'brief');
    await crictl.run('rm', id);
  };
  const made = async () => {
    const [file, ...others] = (await files()).filter((name) => !before.includes(name));
    assert.ok(file !== undefined && others.length === 0, `one file, not ${others.length + 1}`);
    return { file, inode: (await stat(join(snapshots, file))).ino };
  };
  await runs('brief-1');
  const first = await made();
  await runs('brief-2');
  assert.deepEqual(await made(), first);
  await replaceDaemon('SIGTERM');
  assert.deepEqual(await made(), first, 'the next daemon has it, too');
  await crictl.run('rmi', briefImage); // returns when containerd has removed the layers
  await replaceDaemon('SIGTERM');
  assert.deepEqual(await files(), before);
}
