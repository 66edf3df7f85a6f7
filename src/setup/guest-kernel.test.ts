import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { makeBundle, setUpFrom } from './bundle/bundle.ts';
import type { GuestKernel } from './guest-kernel.ts';
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
  const file = join(work.path, 'bundle');
  return {
    ...{ root, parts, current, file },
    /** Chooses a kernel here, and sets up the machine of this name from a bundle that is made then. */
    async setUpNext(kernel: GuestKernel, name: string) {
      const target = join(work.path, name);
      await mkdir(target, { recursive: true });
      await ensureSetup({ ...optionsOf(root), kernel });
      await makeBundle(optionsOf(root), file);
      await setUpFrom(optionsOf(target), file);
      const { guestKernel } = (await readCurrent(target)) ?? assert.fail('no set-up');
      return { root: target, kernel: guestKernel };
    },
    [Symbol.asyncDispose]: () => work[Symbol.asyncDispose](),
  };
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

test('ensureSetup() records a choice of the kernel that machines have anyway', async () => {
  await using machine = await openMachine();
  const { root, current } = machine;
  await ensureSetup(optionsOf(root));
  assert.deepEqual(await readCurrent(root), current);
  await ensureSetup({ ...optionsOf(root), kernel: 'debian' });
  assert.deepEqual(await readCurrent(root), { ...current, chosenKernel: 'debian' });
});

test('a choice that waits for its build is kept by later set-ups, and ends with another choice', async () => {
  await using machine = await openMachine();
  const { root, current } = machine;
  await publishCurrent(root, { ...current, chosenKernel: 'small' });
  await ensureSetup(optionsOf(root));
  assert.equal((await readCurrent(root))?.chosenKernel, 'small');
  await ensureSetup({ ...optionsOf(root), kernel: 'debian' });
  assert.deepEqual(await readCurrent(root), { ...current, chosenKernel: 'debian' });
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
  for (const kernel of ['small', 'debian'] as const) {
    const target = await machine.setUpNext(kernel, `of ${kernel}`);
    assert.equal(target.kernel, kernel);
    const other = kernel === 'small' ? 'debian' : 'small';
    await ensureSetup({ ...optionsOf(target.root), kernel: other });
    assert.equal((await readCurrent(target.root))?.guestKernel, other);
  }
});

test('a machine keeps the kernel that was chosen there when it is set up from another bundle', async () => {
  await using machine = await openMachine();
  const { root } = await machine.setUpNext('small', 'target');
  assert.equal((await machine.setUpNext('debian', 'target')).kernel, 'debian'); // nothing was chosen there
  for (const kernel of ['small', 'debian'] as const) {
    await ensureSetup({ ...optionsOf(root), kernel });
    for (const made of ['small', 'debian'] as const)
      assert.equal((await machine.setUpNext(made, 'target')).kernel, kernel);
  }
});

test('a bundle without the kernel that was chosen sets up with its own, says so, and the choice stays', async () => {
  await using machine = await openMachine();
  const { root } = await machine.setUpNext('small', 'target');
  await ensureSetup({ ...optionsOf(root), kernel: 'small' });
  const parts = machine.parts.filter((part) => !basename(part).startsWith('small-'));
  await publishCurrent(machine.root, { ...machine.current, parts });
  const warnings: string[] = [];
  await makeBundle(optionsOf(machine.root), machine.file);
  await setUpFrom({ ...optionsOf(root), warn: (text) => warnings.push(text) }, machine.file);
  const { guestKernel, chosenKernel } = (await readCurrent(root)) ?? assert.fail('no set-up');
  assert.deepEqual([guestKernel, chosenKernel], ['debian', 'small']);
  assert.match(warnings.join(), /Debian's kernel.*\n.*podvm setup --kernel small/);
});
