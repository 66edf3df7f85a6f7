import assert from 'node:assert/strict';
import { chmod, chown, mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { readHostTree } from './host-tree.ts';

const limits = { maxBytes: 1024, maxFiles: 8, maxDepth: 3 };
const signal = new AbortController().signal;
let volume = '';

beforeEach(async () => {
  volume = await mkdtemp(join(tmpdir(), 'podvm-tree-'));
});
afterEach(() => rm(volume, { recursive: true }));

/** Writes a version as kubelet's atomic writer does. */
async function writeVersion(version: string, files: Record<string, string>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(volume, version, path, '..'), { recursive: true });
    await writeFile(join(volume, version, path), text);
  }
  await symlink(version, join(volume, '..data_tmp'));
  await rename(join(volume, '..data_tmp'), join(volume, '..data'));
}
const read = () => readHostTree('volume app', volume, limits, signal);
const refused = (kind: string, words: RegExp) => (error: unknown) =>
  error instanceof PodvmError && error.kind === kind && words.test(error.message);

test('readHostTree() reads the current version of kubelet’s layout, with modes and owners', async () => {
  await writeVersion('..2026_01', { old: 'gone' });
  await writeVersion('..2026_02', { key: 'value', 'below/deep': 'x' });
  await symlink('..data/key', join(volume, 'key'));
  await chmod(join(volume, '..2026_02/key'), 0o440);
  await chmod(volume, 0o2777);
  if (process.getuid?.() === 0) {
    await chown(join(volume, '..2026_02/key'), 1000, 2000);
    await chown(volume, 0, 2000);
    await chmod(volume, 0o2777);
  }
  const isRoot = process.getuid?.() === 0;
  const { owner, files } = await read();
  assert.equal(owner.mode, 0o2777);
  const key = files.find(({ path }) => path === 'key');
  assert.deepEqual(files.map(({ path }) => path).toSorted(), ['below/deep', 'key']);
  assert.equal(Buffer.from(key?.bytes ?? []).toString(), 'value');
  assert.equal(key?.mode, 0o440);
  if (isRoot) assert.deepEqual([key.uid, key.gid, owner.gid], [1000, 2000, 2000]);
});

test('readHostTree() reads a plain directory, and a single file by its name', async () => {
  await writeFile(join(volume, 'hosts'), '127.0.0.1 localhost\n');
  assert.deepEqual(
    (await read()).files.map(({ path }) => path),
    ['hosts'],
  );
  const { files, owner } = await readHostTree('hosts', join(volume, 'hosts'), limits, signal);
  assert.deepEqual([files.length, files[0]?.path, owner.mode], [1, 'hosts', files[0]?.mode]);
});

test('readHostTree() distinguishes trees only by content, mode and name', async () => {
  await writeVersion('..1', { a: 'x', b: 'y' });
  const first = await read();
  await writeVersion('..2', { b: 'y', a: 'x' });
  assert.equal((await read()).digest, first.digest);
  await chmod(join(volume, '..2/a'), 0o600);
  const other = await read();
  assert.notEqual(other.digest, first.digest);
  await writeVersion('..3', { a: 'xb', y: '' });
  assert.notEqual((await read()).digest, other.digest);
});

test('readHostTree() never mixes two versions', async () => {
  const text = (version: number) => ({ a: `${version}`, b: `${version}`, c: `${version}` });
  await writeVersion('..v0', text(0));
  const stop = new AbortController();
  const writing = (async () => {
    for (let version = 1; !stop.signal.aborted; version += 1) {
      await writeVersion(`..v${version}`, text(version));
      await rm(join(volume, `..v${version - 1}`), { recursive: true });
    }
  })();
  try {
    for (let round = 0; round < 50; round += 1) {
      const tree = await read().catch((error: unknown) => {
        assert.ok(refused('busy', /changed during each of 10 reads/)(error), String(error));
        return undefined;
      });
      if (tree === undefined) continue;
      const seen = tree.files.map(({ bytes }) => Buffer.from(bytes).toString());
      assert.equal(seen.length, 3);
      assert.equal(new Set(seen).size, 1, `mixed versions: ${seen.join(' ')}`);
    }
  } finally {
    stop.abort();
    await writing;
  }
});

test('readHostTree() refuses more bytes than its limit before reading them, and accepts exactly the limit', async () => {
  await writeVersion('..1', { big: '' });
  await truncate(join(volume, '..1/big'), 2 * 1024 ** 3);
  await assert.rejects(read(), refused('exhausted', /volume app: .* at most 1024 bytes, got 2147483648$/));
  await truncate(join(volume, '..1/big'), 1024);
  assert.equal((await read()).files[0]?.bytes.length, 1024);
  await writeFile(join(volume, '..1/one-more'), '1');
  await assert.rejects(read(), refused('exhausted', /got 1025$/));
});

test('readHostTree() refuses too many files and too deep trees', async () => {
  await writeVersion('..1', Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`f${index}`, ''])));
  await assert.rejects(read(), refused('exhausted', /at most 8 files/));
  await writeVersion('..2', { 'a/b/c/d': '' });
  await assert.rejects(read(), refused('exhausted', /at most 3 nested directories, got 4/));
});

test('readHostTree() follows no link and does not wait for a FIFO', async () => {
  await symlink('/etc/shadow', join(volume, 'link'));
  await assert.rejects(read(), refused('invalid', /"link" is neither a file nor a directory/));
  await rm(join(volume, 'link'));
  await run('mkfifo', [join(volume, 'fifo')]);
  await assert.rejects(read(), refused('invalid', /"fifo" is neither a file nor a directory/));
});

test('readHostTree() reports a missing path', async () => {
  const none = readHostTree('volume app', join(volume, 'none'), limits, signal);
  await assert.rejects(none, refused('notFound', /Cannot read volume app at .*none: ENOENT/));
});
