import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hashOf, type Part } from './parts.ts';
import { lostModules, smallKernelRecipe, sourceOf } from './small-kernel.ts';

const versionsOf = (version: string) => ({ 'linux-image-6.12.118+deb13-cloud-amd64': version, kernel: '6.12.118' });

/** Debian's kernel as a part in `directory`, which it makes. */
async function makeDebian(
  directory: string,
  version: string,
  config = 'CONFIG_NUMA=y\n',
  modules = 'veth',
): Promise<Part> {
  for (const name of ['modules', 'pod-modules']) {
    await mkdir(join(directory, name), { recursive: true });
    await writeFile(join(directory, name, 'modules.list'), `module ${modules} ${modules}.ko -\n`);
  }
  await writeFile(join(directory, 'config'), config);
  return { directory, versions: versionsOf(version) };
}

const recipeFor = async (kernel: Part) =>
  await smallKernelRecipe(
    { archive: { sources: [], hasSecurity: true, aptOptions: [] }, signal: new AbortController().signal },
    kernel,
  );

test("the part's name changes with Debian's version, configuration and modules, and with nothing else", async () => {
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-small-kernel-'));
  let made = 0;
  const nameOf = async (version: string, ...more: readonly string[]) => {
    made += 1;
    return hashOf((await recipeFor(await makeDebian(join(work.path, `kernel-${made}`), version, ...more))).inputs);
  };
  const first = await nameOf('6.12.118-1');
  assert.equal(await nameOf('6.12.118-1'), first); // a part of another name, as an upgrade of QEMU makes it
  const others = [
    await nameOf('6.12.119-1'),
    await nameOf('6.12.118-1', 'CONFIG_NUMA=n\n'),
    await nameOf('6.12.118-1', 'CONFIG_NUMA=y\n', 'dummy'),
  ];
  assert.equal(new Set([first, ...others]).size, 4);
});

test('a kernel of unknown version has a recipe, which any set-up names, and which fails when it is made', async () => {
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-small-kernel-'));
  const recipe = await recipeFor(await makeDebian(work.path, 'of another form'));
  assert.equal(recipe.name, 'small-kernel');
  await assert.rejects(recipe.make('/nonexistent'), { kind: 'unsupported' });
});

test("howFar() counts what the kernel's make has compiled, from the log in the directory of the build", async () => {
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-small-kernel-'));
  const recipe = await recipeFor(await makeDebian(join(work.path, 'kernel'), '6.12.118-1'));
  assert.equal(await recipe.howFar?.(work.path), undefined);
  await mkdir(join(work.path, 'work'));
  await writeFile(join(work.path, 'work/log'), '  HOSTCC  a\n  CC      b.o\n  AR      c.a\n  CC [M]  d.o\n');
  assert.equal(await recipe.howFar?.(work.path), '2 files compiled');
});

test("sourceOf() names the source package of Debian's kernel, of the same version", () => {
  const of = (version: string) => sourceOf({ directory: '/', versions: versionsOf(version) });
  assert.deepEqual(of('6.12.118-1'), { name: 'linux-source-6.12', version: '6.12.118-1', localVersion: '-1-podvm' });
  assert.equal(of('6.12.9-2~deb13u1')?.localVersion, '-2~deb13u1-podvm');
  for (const version of ['', '6.12', '6.12.118-1"; reboot; "', '6.12.118']) assert.equal(of(version), undefined);
});

test('lostModules() finds a module of either list that is neither there nor built in, except for one that has no use', () => {
  const debian = [
    'boot virtio_rng virtio-rng.ko -\ndemand sctp sctp.ko.xz libcrc32c\n',
    'module veth veth.ko -\nmodule em_canid em_canid.ko -\nmodule drop_monitor drop_monitor.ko -\nalias rtnl_link_veth veth\n',
  ];
  const own = ['demand sctp sctp.ko.xz -\n', 'module veth veth.ko -\n'];
  assert.deepEqual(lostModules(debian, own, 'kernel/drivers/char/hw_random/virtio-rng.ko\n'), ['em_canid']);
  assert.deepEqual(lostModules(debian, [own[1] ?? ''], ''), ['virtio_rng', 'sctp', 'em_canid']);
});
