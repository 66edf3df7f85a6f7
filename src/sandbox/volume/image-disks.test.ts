import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { createImageDisks } from './image-disks.ts';
import { createPhases } from '../phases.ts';

test('attach() says that an image is damaged when a guest cannot mount it, and what the guest said when it is not', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-image-disks-'));
  try {
    const rootfsPath = join(directory, 'rootfs.erofs');
    await writeFile(rootfsPath, '');
    for (const [kind, damage, message] of [
      [
        'failedPrecondition',
        'its content differs from what was written',
        /^Cannot mount image sha256:1: it is damaged: its/,
      ],
      ['failedPrecondition', undefined, /EUCLEAN/],
      ['timeout', 'its file is gone', /EUCLEAN/],
    ] as const) {
      let disposed = 0;
      const image = {
        id: 'sha256:1',
        config: {},
        rootfsPath,
        findDamage: async () => damage,
        [Symbol.asyncDispose]: async () => void (disposed += 1),
      };
      const machine = { attachDisk: async () => {} };
      const call = async () => {
        throw new PodvmError(kind, 'Cannot mount disk image-0: EUCLEAN');
      };
      const disks = createImageDisks(machine, { call }, directory);
      const signal = new AbortController().signal;
      await assert.rejects(
        disks.attach(
          image,
          createPhases(() => 0n),
          signal,
        ),
        { message },
      );
      await disks[Symbol.asyncDispose]();
      assert.equal(disposed, 1);
      await rm(join(directory, 'image-0.erofs'));
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});
