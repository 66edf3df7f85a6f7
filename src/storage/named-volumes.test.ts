import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { lockFile } from '#host/file/file-lock.ts';
import { run } from '#host/process/run.ts';
import { minVolumeBytes, NamedVolumes } from './named-volumes.ts';

const root = await mkdtemp(join(tmpdir(), 'podvm-volumes-'));
after(() => rm(root, { recursive: true }));
const signal = new AbortController().signal;
const data = { namespace: 'shop', name: 'data', sizeBytes: 20_000_001 };
const kind = (expected: string) => (error: unknown) => kindOf(error) === expected;
const openOne = async () => {
  const directory = await mkdtemp(join(root, 'node-'));
  return { directory, volumes: new NamedVolumes(directory) };
};

test('a volume is a sparse, valid and empty ext4 with a journal, of the size that was requested', async () => {
  const { directory, volumes } = await openOne();
  assert.deepEqual(await volumes.ensure([data], signal), ['created']);
  const path = volumes.pathOf('shop', 'data');
  const { size, blocks, mode } = await stat(path);
  assert.equal(size, 20_000_768, 'rounded up to a block');
  assert.ok(blocks * 512 < 6_000_000, `a fresh volume takes ${blocks * 512} bytes`);
  assert.equal(mode & 0o777, 0o600);
  await run('e2fsck', ['-n', '-f', path]);
  assert.match((await run('dumpe2fs', ['-h', path])).stdout, /features:.*has_journal/);
  assert.doesNotMatch((await run('debugfs', ['-R', 'ls -l /', path])).stdout, /lost/);
  const [listed] = await new NamedVolumes(directory).list();
  assert.deepEqual([listed?.namespace, listed?.name, listed?.sizeBytes], ['shop', 'data', size]);
});

test('ensure() keeps a volume of the same size, and refuses a smaller one before it makes anything', async () => {
  const { directory, volumes } = await openOne();
  const other = { ...data, name: 'other' };
  assert.deepEqual(await Promise.all([volumes.ensure([data], signal), volumes.ensure([data, other], signal)]), [
    ['created'],
    ['unchanged', 'created'],
  ]);
  const more = { ...data, namespace: 'more' };
  await assert.rejects(volumes.ensure([more, { ...data, sizeBytes: 19_000_000 }], signal), kind('failedPrecondition'));
  for (const sizeBytes of [0, minVolumeBytes - 1, 2 ** 41, Number.NaN])
    await assert.rejects(volumes.ensure([more, { ...more, sizeBytes }], signal), kind('invalid'));
  assert.deepEqual(await readdir(directory), ['shop']);
});

test('ensure() enlarges a volume, also while a machine has it, and keeps its data', async () => {
  const { volumes } = await openOne();
  await volumes.ensure([data], signal);
  const path = volumes.pathOf('shop', 'data');
  await run('debugfs', ['-w', '-R', 'mkdir kept', path]);
  await using image = await open(path, 'r');
  assert.ok(await lockFile(image));
  const larger = { ...data, sizeBytes: 40_000_000 };
  assert.deepEqual(await volumes.ensure([larger], signal), ['configured']);
  assert.equal((await stat(path)).size, 40_001_536);
  assert.deepEqual(await volumes.ensure([larger], signal), ['unchanged']);
  await assert.rejects(volumes.ensure([data], signal), kind('failedPrecondition'));
  assert.match((await run('debugfs', ['-R', 'ls -l /', path])).stdout, /kept/);
});

test('ensure() makes a volume once that two claims request, and refuses two sizes of one', async () => {
  const { directory, volumes } = await openOne();
  await assert.rejects(volumes.ensure([data, { ...data, sizeBytes: 30_000_000 }], signal), kind('invalid'));
  assert.deepEqual(await readdir(directory), []);
  assert.deepEqual(await volumes.ensure([data, data], signal), ['created', 'unchanged']);
});

test('remove() and ensure() of one volume wait for each other', async () => {
  const { volumes } = await openOne();
  await volumes.ensure([data], signal);
  for (let round = 0; round < 10; round += 1) {
    const [, made] = await Promise.all([volumes.remove('shop', 'data'), volumes.ensure([data], signal)]);
    assert.deepEqual(made, ['created']);
    assert.equal((await volumes.list()).length, 1);
  }
});

test('a cancelled volume leaves nothing, and an incomplete one is made again', async () => {
  const { directory, volumes } = await openOne();
  await assert.rejects(volumes.ensure([data], AbortSignal.abort()), kind('cancelled'));
  assert.deepEqual(await volumes.list(), []);
  assert.deepEqual(await readdir(join(directory, 'shop')), []);
  await run('mkdir', ['-p', join(directory, 'shop/data')]);
  await (await open(join(directory, 'shop/data/disk.new'), 'w')).close();
  assert.deepEqual(await volumes.ensure([data], signal), ['created']);
});

test('remove() takes the data away, but not from a machine', async () => {
  const { directory, volumes } = await openOne();
  await volumes.ensure([data], signal);
  {
    await using image = await open(volumes.pathOf('shop', 'data'), 'r');
    assert.ok(await lockFile(image));
    await assert.rejects(volumes.remove('shop', 'data'), kind('busy'));
  }
  assert.equal((await volumes.remove('shop', 'data')).name, 'data');
  await assert.rejects(readdir(directory), { code: 'ENOENT' }, 'nothing is left of the last volume');
  for (const name of ['data', '..', '../shop/data', ''])
    await assert.rejects(volumes.remove('shop', name), kind('notFound'));
});
