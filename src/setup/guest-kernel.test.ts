import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { makeBundle, setUpFrom } from './bundle/bundle.ts';
import { hashProgramSources } from './parts/program-sources.ts';
import { silentProgress } from './progress.ts';
import { areOurs, currentWith, ensureSetup, publishCurrent, readCurrent } from './setup.ts';

const repo = join(import.meta.dirname, '../..');
const files = {
  sysroot: 'root/usr/program',
  crun: 'crun',
  'file-server': 'files',
  kernel: 'vmlinux',
  modules: 'modules.erofs',
  initramfs: 'initramfs.img',
  'small-kernel': 'vmlinux',
  'small-modules': 'modules.erofs',
  'small-initramfs': 'initramfs.img',
};

const optionsOf = (root: string) => ({
  ...{ root, repo, version: '1.2.3', epoch: 946_684_800 },
  ...{ warn: () => undefined, progress: silentProgress, signal: new AbortController().signal },
});

/** A state directory with parts of this version and both kernels, of which Debian's is the current one. */
async function openMachine() {
  const work = await mkdtempDisposable(join(tmpdir(), 'podvm-kernels-'));
  const root = join(work.path, 'root');
  const parts = Object.keys(files).map((name) => join(root, 'parts', `${name}-0123456789abcdef`));
  for (const [at, file] of Object.values(files).entries()) {
    const path = join(parts[at] ?? '', file);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, file);
    await writeFile(join(parts[at] ?? '', 'part.json'), '{}');
  }
  const agent = await hashProgramSources(repo);
  const versions = { kernel: '6.12.118+deb13-cloud-amd64', 'small-kernel': '6.12.118-1-podvm', crun: '1.21' };
  const current = currentWith('debian', { generation: 'first', agent, versions, parts });
  assert.ok(current);
  await publishCurrent(root, current);
  return { root, parts, current, [Symbol.asyncDispose]: () => work[Symbol.asyncDispose]() };
}

test('ensureSetup() changes the kernel of new machines without a network, and keeps the choice and the other one', async () => {
  await using machine = await openMachine();
  const { root, current } = machine;
  const small = await ensureSetup({ ...optionsOf(root), kernel: 'small' });
  assert.equal(small.kernelVersion, '6.12.118-1-podvm');
  assert.deepEqual(
    [small.kernel, small.initramfs, small.modules].map((path) => basename(join(path, '..'))),
    ['small-kernel', 'small-initramfs', 'small-modules'].map((name) => `${name}-0123456789abcdef`),
  );
  assert.notEqual(small.key, current.key);
  assert.deepEqual(await ensureSetup(optionsOf(root)), small);
  const chosen = await readCurrent(root);
  assert.ok(chosen && areOurs(chosen));
  assert.equal((await readdir(join(root, 'parts'))).length, machine.parts.length);
  assert.deepEqual((await ensureSetup({ ...optionsOf(root), kernel: 'debian' })).key, current.key);
});

test('a choice that waits for its build is kept by later set-ups, and ends with another choice', async () => {
  await using machine = await openMachine();
  const { root, current } = machine;
  await publishCurrent(root, { ...current, awaitedKernel: 'small' });
  await ensureSetup(optionsOf(root));
  assert.equal((await readCurrent(root))?.awaitedKernel, 'small');
  await ensureSetup({ ...optionsOf(root), kernel: 'debian' });
  assert.deepEqual(await readCurrent(root), current);
});

test('currentWith() finds no small kernel in parts that lack a part of it', async () => {
  await using machine = await openMachine();
  for (const lacking of ['small-kernel', 'small-modules', 'small-initramfs', 'sysroot']) {
    const parts = machine.parts.filter((part) => !basename(part).startsWith(`${lacking}-`));
    assert.equal(currentWith('small', { ...machine.current, parts }), undefined);
  }
});

test('a current.json of before there was a choice has the kernel of Debian', async () => {
  await using machine = await openMachine();
  const file = join(machine.root, 'assets/current.json');
  const { guestKernel, ...older } = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  assert.equal(guestKernel, 'debian');
  await writeFile(file, JSON.stringify(older));
  assert.equal((await readCurrent(machine.root))?.guestKernel, 'debian');
});

test('a bundle carries both kernels, and sets up with the one that its maker has chosen', async () => {
  await using machine = await openMachine();
  const { root } = machine;
  const target = `${root}-target`;
  const file = `${root}.bundle`;
  await mkdir(target);
  for (const kernel of ['small', 'debian'] as const) {
    await ensureSetup({ ...optionsOf(root), kernel });
    await makeBundle(optionsOf(root), file);
    const assets = await setUpFrom(optionsOf(target), file);
    assert.equal(basename(join(assets.kernel, '..')), `${kernel === 'small' ? 'small-' : ''}kernel-0123456789abcdef`);
  }
  const small = await ensureSetup({ ...optionsOf(target), kernel: 'small' });
  assert.equal(await readFile(small.kernel, 'utf8'), 'vmlinux');
});
