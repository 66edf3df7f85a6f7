import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { makeScratchDisk, maxScratchBytes, minScratchBytes } from './scratch-disk.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-scratch-'));
after(() => rm(directory, { recursive: true }));
const signal = AbortSignal.timeout(30_000);
const ownerUid = process.getuid?.() ?? 0;
const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;

test('makeScratchDisk() refuses sizes that no file system fits, and leaves nothing', async () => {
  for (const sizeBytes of [0, -1, 1.5, minScratchBytes - 1, maxScratchBytes + 1, Number.NaN]) {
    await assert.rejects(
      makeScratchDisk({ path: join(directory, 'no'), sizeBytes, ownerUid }, signal),
      kind('invalid'),
    );
  }
  assert.deepEqual(await readdir(directory), []);
});

test('makeScratchDisk() leaves nothing when it is cancelled', async () => {
  const path = join(directory, 'cancelled');
  await assert.rejects(
    makeScratchDisk({ path, sizeBytes: minScratchBytes, ownerUid }, AbortSignal.abort()),
    kind('cancelled'),
  );
  assert.deepEqual(await readdir(directory), []);
});

test('makeScratchDisk() makes a sparse, sound ext4 and takes it away', async () => {
  const path = join(directory, 'disk');
  const sizeBytes = 10 * 1024 ** 3;
  {
    await using disk = await makeScratchDisk({ path, sizeBytes, ownerUid }, signal);
    const { size, blocks, mode } = await stat(disk.path);
    assert.equal(size, sizeBytes);
    assert.ok(blocks * 512 < 16 * 1024 * 1024, `a fresh disk takes ${blocks * 512} bytes`);
    assert.equal(mode & 0o777, 0o600);
    await run('e2fsck', ['-n', '-f', path]);
  }
  assert.deepEqual(await readdir(directory), []);
});
