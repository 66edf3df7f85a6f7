import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { roomOf } from './ext4-room.ts';
import { describeDisks } from './testing/storage.conformance.ts';
import { diskBytesFor, makeScratchDisk, makeVolumeDisk, maxScratchBytes, minScratchBytes } from './scratch-disk.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-scratch-'));
after(() => rm(directory, { recursive: true }));
const signal = new AbortController().signal;
const ownerUid = process.getuid?.() ?? 0;
const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;

describeDisks('real', { makeScratchDisk, makeVolumeDisk });

test('makeScratchDisk() refuses sizes outside the limits, and leaves nothing', async () => {
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

test('makeScratchDisk() makes a sparse, valid ext4 and removes it', async () => {
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

test('makeVolumeDisk() has the requested room and little more for each size of tables', async () => {
  const path = join(directory, 'volume');
  const mebibyte = 1024 ** 2;
  for (const roomBytes of [mebibyte, 4 * mebibyte, 127 * mebibyte, 128 * mebibyte, 5 * 1024 * mebibyte]) {
    await using disk = await makeVolumeDisk({ path, roomBytes, ownerUid }, signal);
    const more = (await roomOf(path)) - roomBytes;
    assert.ok(more > 0 && more <= mebibyte / 8, `${more} bytes more than ${roomBytes}`);
    assert.ok(disk.sizeBytes <= diskBytesFor(roomBytes));
    assert.equal((await stat(path)).size, disk.sizeBytes);
    await run('e2fsck', ['-n', '-f', path]);
  }
  assert.deepEqual(await readdir(directory), []);
});

test('makeVolumeDisk() makes the smallest disk for the smallest room, and refuses invalid sizes', async () => {
  const path = join(directory, 'volume');
  await using disk = await makeVolumeDisk({ path, roomBytes: 0, ownerUid }, signal);
  assert.equal(disk.sizeBytes, 512 * 1024);
  for (const roomBytes of [-1, 0.5, Number.NaN, maxScratchBytes]) {
    const request = { path: join(directory, 'no'), roomBytes, ownerUid };
    await assert.rejects(makeVolumeDisk(request, signal), kind('invalid'));
  }
  assert.deepEqual(await readdir(directory), ['volume']);
});
