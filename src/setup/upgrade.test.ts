import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtempDisposable, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { kindOf, PodvmError } from '#base/errors.ts';
import { missingHostTools, readHostTools } from './host-tools.ts';
import { type PackageRecord, writePackages } from './parts/package-record.ts';
import type { PartRecipe } from './parts/parts.ts';
import { silentProgress } from './progress.ts';
import { type Maker, readCurrent, readReady, type SetupOptions, upgradeSetup } from './setup.ts';

const repo = join(import.meta.dirname, '../..');
const hasTools = (await missingHostTools((await readHostTools()).filter(({ forUsers }) => !forUsers))).length === 0;
const skip = hasTools || process.env['PODVM_REQUIRE_VM'] === '1' ? false : 'needs the host packages of set-up';

/** Gives parts names of this run: one that a process of another run holds would not be removed. */
const ofThisRun = randomBytes(6).toString('hex');

const record = (name: string, version: string, architecture = 'amd64'): PackageRecord => ({
  ...{ name, version, architecture, licences: [] },
});
const candidatesOf = (records: readonly PackageRecord[]) =>
  records
    .filter(({ architecture }) => architecture !== 'source')
    .map(({ name, version }) => ({ name, version, isSecurity: false }));

/** Archives with these versions, and parts that are small files instead of what is fetched and built. */
class StandIn implements Maker {
  kernel = '6.12.118';
  qemu = '10.0';
  /** Stands in for the build of the small kernel. */
  build: () => Promise<void> = () => Promise.resolve();
  /** Name of a part whose making fails. */
  failing: string | undefined;
  readonly made: string[] = [];

  #packages() {
    return {
      sysroot: [record('qemu-system-x86', this.qemu)],
      'build-root': [record('gcc', '14'), record('crun', '1.21-1', 'source')],
      kernel: [record(`linux-image-${this.kernel}+deb13-cloud-amd64`, `${this.kernel}-1`)],
    };
  }

  findArchive() {
    return Promise.resolve({ sources: [], hasSecurity: true, aptOptions: [] });
  }

  newest() {
    const { sysroot, 'build-root': buildRoot, kernel } = this.#packages();
    const found = { sysroot: candidatesOf(sysroot), buildRoot: candidatesOf(buildRoot), kernel: candidatesOf(kernel) };
    return Promise.resolve({ ...found, crun: '1.21-1' });
  }

  async make({ name }: PartRecipe, directory: string) {
    this.made.push(name);
    if (name === this.failing) throw new PodvmError('exhausted', 'no space left');
    if (name === 'small-kernel') await this.build();
    const files: Readonly<Record<string, readonly string[]>> = {
      sysroot: ['root/usr/bin/qemu-system-x86_64'],
      kernel: ['vmlinux', 'config', 'modules/modules.list', 'pod-modules/modules.list'],
      'small-kernel': ['vmlinux'],
      'file-server': ['files'],
      'vmm-plugin': ['discard-translations.so'],
    };
    const made = name.endsWith('modules') ? 'modules.erofs' : 'initramfs.img';
    for (const file of files[name] ?? [made]) {
      await mkdir(dirname(join(directory, file)), { recursive: true });
      await writeFile(join(directory, file), `${name} of ${this.kernel}, ${ofThisRun}`);
    }
    const packages: Readonly<Record<string, readonly PackageRecord[]>> = this.#packages();
    await writePackages(directory, packages[name] ?? []);
    const versions = Object.fromEntries((packages[name] ?? []).map((each) => [each.name, each.version]));
    const kernels = { kernel: `${this.kernel}+deb13-cloud-amd64`, 'small-kernel': `${this.kernel}-1-podvm` };
    return name in kernels ? { ...versions, [name]: kernels[name as keyof typeof kernels] } : versions; // SAFE: it is one of them
  }
}

/** A machine with the small kernel, built from what the stand-in has. */
async function openMachine() {
  const work = await mkdtempDisposable(join(tmpdir(), 'podvm-upgrade-'));
  const maker = new StandIn();
  const warnings: string[] = [];
  const upgrade = async (more: Partial<SetupOptions> = {}) => {
    maker.made.length = 0;
    const { signal } = new AbortController();
    const warn = (text: string) => warnings.push(text);
    return await upgradeSetup({ root: work.path, repo, warn, progress: silentProgress, signal, ...more }, maker);
  };
  await upgrade({ kernel: 'small' });
  const before = (await readCurrent(work.path)) ?? assert.fail('no set-up');
  assert.deepEqual([before.guestKernel, before.kernelVersion], ['small', '6.12.118-1-podvm']);
  return {
    ...{ root: work.path, maker, warnings, upgrade, before },
    /** Asserts that new pods get the same parts as at the beginning, and that there are no others. */
    async isUnchanged() {
      assert.deepEqual(await readCurrent(work.path), before);
      assert.equal((await readReady({ root: work.path, repo }))?.key, before.key);
      const left = await readdir(join(work.path, 'parts'));
      assert.deepEqual(left.sort(), before.parts.map((part) => basename(part)).sort());
    },
    [Symbol.asyncDispose]: () => work[Symbol.asyncDispose](),
  };
}

describe('an upgrade of a machine with the small kernel', { skip }, () => {
  test("builds it from Debian's newer source; until that is done, new pods get the former one", async () => {
    await using machine = await openMachine();
    const { root, maker, before } = machine;
    maker.kernel = '6.12.119';
    maker.build = async () => assert.deepEqual(await readCurrent(root), before);
    const { assets, changes } = await machine.upgrade();
    assert.equal(assets.kernelVersion, '6.12.119-1-podvm');
    const after = (await readCurrent(root)) ?? assert.fail('no set-up');
    assert.deepEqual([after.guestKernel, after.chosenKernel], ['small', 'small']);
    const change = changes.find(({ package: name }) => name === 'small-kernel');
    assert.deepEqual([change?.from, change?.to], ['6.12.118-1-podvm', '6.12.119-1-podvm']);
    const parts = await readdir(join(root, 'parts'));
    assert.equal(parts.filter((name) => name.startsWith('small-kernel-')).length, 1); // the former one is removed
    assert.deepEqual((await machine.upgrade()).changes, []);
    assert.deepEqual(maker.made, []);
  });

  test('builds none when only other packages are newer', async () => {
    await using machine = await openMachine();
    machine.maker.qemu = '10.1';
    const { assets } = await machine.upgrade();
    assert.deepEqual([assets.qemuVersion, assets.kernelVersion], ['10.1', '6.12.118-1-podvm']);
    assert.ok(machine.maker.made.includes('sysroot'));
    assert.ok(!machine.maker.made.includes('small-kernel'));
  });

  test('changes nothing when the build fails, says why, and succeeds later or with the kernel of Debian', async () => {
    await using machine = await openMachine();
    const { maker } = machine;
    maker.kernel = '6.12.119';
    maker.build = () => Promise.reject(new PodvmError('internal', 'Cannot run bwrap: ended with 2'));
    await assert.rejects(machine.upgrade(), {
      kind: 'internal',
      message: 'Cannot build the small kernel: Cannot run bwrap: ended with 2; new pods still get 6.12.118-1-podvm',
      fix: /the same command again, or with `--kernel debian`/,
    });
    await machine.isUnchanged();
    assert.equal((await machine.upgrade({ kernel: 'debian' })).assets.kernelVersion, '6.12.119+deb13-cloud-amd64');
    maker.build = () => Promise.resolve();
    assert.equal((await machine.upgrade({ kernel: 'small' })).assets.kernelVersion, '6.12.119-1-podvm');
  });

  test('keeps a kernel that it has built when a later part fails', async () => {
    await using machine = await openMachine();
    const { maker } = machine;
    maker.kernel = '6.12.119';
    maker.failing = 'small-modules';
    await assert.rejects(machine.upgrade(), /no space/);
    assert.equal((await readCurrent(machine.root))?.key, machine.before.key);
    maker.failing = undefined;
    assert.equal((await machine.upgrade()).assets.kernelVersion, '6.12.119-1-podvm');
    assert.ok(maker.made.includes('small-modules') && !maker.made.includes('small-kernel'));
  });

  test('changes nothing when the build is interrupted, and says so', async () => {
    await using machine = await openMachine();
    const { maker } = machine;
    const interruption = new AbortController();
    maker.kernel = '6.12.119';
    maker.build = () => {
      interruption.abort();
      return Promise.reject(new PodvmError('cancelled', 'Cannot run bwrap: cancelled'));
    };
    const upgraded = machine.upgrade({ signal: interruption.signal });
    await assert.rejects(upgraded, (error) => kindOf(error) === 'cancelled');
    await machine.isUnchanged();
    assert.deepEqual(machine.warnings, ['the small kernel is not built; new pods still get 6.12.118-1-podvm']);
  });
});
