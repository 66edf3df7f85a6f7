import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtempDisposable, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { makeBundle, setUpFrom } from './bundle.ts';
import { silentProgress } from '../progress.ts';
import { hashProgramSources } from '../parts/program-sources.ts';
import { keyOf, readReady } from '../setup.ts';

const repo = join(import.meta.dirname, '../../..');
const version = '1.2.3';
const names = ['sysroot', 'build-root', 'kernel', 'modules', 'initramfs', 'file-server'];
const needed = ['root/usr/program', 'root/usr/gcc', 'vmlinux', 'modules.erofs', 'initramfs.img', 'files'];

const optionsOf = (root: string) => ({
  ...{ root, repo, version, epoch: 946_684_800 },
  ...{ warn: () => undefined, progress: silentProgress, signal: new AbortController().signal },
});

/** A state directory with small parts of this version, and an empty one beside it. */
async function openMachines() {
  const work = await mkdtempDisposable(join(tmpdir(), 'podvm-bundle-'));
  const [root, target] = [join(work.path, 'made'), join(work.path, 'target')];
  const part = (name: string) => join(root, 'parts', `${name}-0123456789abcdef`);
  for (const [at, name] of names.entries()) {
    const file = join(part(name), needed[at] ?? '');
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, name.repeat(5000), { mode: 0o711 });
    await writeFile(join(part(name), 'part.json'), '{}');
  }
  const agent = await hashProgramSources(repo);
  const current = {
    ...{ key: keyOf('first', agent, 'debian'), generation: 'first', agent, versions: { 'qemu-system-x86': '10' } },
    ...{ kernelVersion: '6.12', qemuVersion: '10', crunVersion: '1.21' },
    ...{ sysroot: join(part('sysroot'), 'root'), kernel: join(part('kernel'), 'vmlinux') },
    ...{ initramfs: join(part('initramfs'), 'initramfs.img'), modules: join(part('modules'), 'modules.erofs') },
    ...{ fileServer: join(part('file-server'), 'files'), parts: names.map(part) },
  };
  await mkdir(join(root, 'assets'));
  await writeFile(join(root, 'assets/current.json'), JSON.stringify(current));
  await mkdir(target);
  const file = join(work.path, 'one.bundle');
  return { root, target, file, [Symbol.asyncDispose]: () => work[Symbol.asyncDispose]() };
}

test('a bundle sets up another state directory, with everything except the build root', async () => {
  await using machines = await openMachines();
  await makeBundle(optionsOf(machines.root), machines.file);
  const assets = await setUpFrom(optionsOf(machines.target), machines.file);
  assert.deepEqual(await readReady({ root: machines.target, repo }), assets);
  assert.equal(assets.kernel, join(machines.target, 'parts/kernel-0123456789abcdef/vmlinux'));
  const parts = await readdir(join(machines.target, 'parts'));
  assert.deepEqual(
    parts.map((part) => part.replace(/-[0-9a-f]{16}$/, '')).sort(),
    names.filter((name) => name !== 'build-root').sort(),
  );
  const { stdout } = await run('stat', ['-c', '%a %U %s', join(assets.sysroot, 'usr/program')]);
  assert.equal(stdout, '711 root 35000\n');
  assert.deepEqual(await setUpFrom(optionsOf(machines.target), machines.file), assets); // a second time
});

test('the same parts give the same bundle, which tar and sha256sum can check', async () => {
  await using machines = await openMachines();
  const second = `${machines.file}.second`;
  for (const file of [machines.file, second]) await makeBundle(optionsOf(machines.root), file);
  assert.ok((await readFile(machines.file)).equals(await readFile(second)));
  await run('tar', ['-xf', machines.file], { cwd: machines.target });
  await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: machines.target });
  assert.deepEqual((await readdir(join(machines.file, '..'))).sort(), [
    'made',
    'one.bundle',
    'one.bundle.second',
    'target',
  ]);
});

test('content that several parts have is in the bundle once', async () => {
  await using machines = await openMachines();
  const bytes = randomBytes(6 * 1024 * 1024); // further apart than zstd looks back by default
  const same = (root: string, name: string) => join(root, 'parts', `${name}-0123456789abcdef`, 'same');
  for (const name of ['kernel', 'modules']) await writeFile(same(machines.root, name), bytes);
  await makeBundle(optionsOf(machines.root), machines.file);
  const { size } = await stat(machines.file);
  assert.ok(size < bytes.length * 1.2, `the bundle has ${size} bytes`);
  await setUpFrom(optionsOf(machines.target), machines.file);
  assert.ok((await readFile(same(machines.target, 'modules'))).equals(bytes));
});

test('a bundle damaged at any place is refused, and leaves nothing', async () => {
  await using machines = await openMachines();
  await makeBundle(optionsOf(machines.root), machines.file);
  const whole = await readFile(machines.file);
  const payload = whole.indexOf(Buffer.from('28b52ffd', 'hex')); // magic number of zstd
  const inside = [10, 600, whole.indexOf('"podvm": "1.2.3"') + 11, whole.indexOf('bundle.json\0'), payload + 20];
  for (const at of inside) {
    const bytes = Buffer.from(whole);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    await writeFile(machines.file, bytes);
    await assert.rejects(setUpFrom(optionsOf(machines.target), machines.file), (error: Error) => {
      assert.equal(kindOf(error), 'corrupt', `byte ${at}: ${error.message}`);
      return error.message.startsWith(`Cannot read ${machines.file}: it is damaged, or not a bundle of podvm: `);
    });
  }
  await writeFile(machines.file, whole);
  for (const bytes of [payload + 10, 700, 0]) {
    await truncate(machines.file, bytes);
    await assert.rejects(setUpFrom(optionsOf(machines.target), machines.file), { kind: 'corrupt' });
  }
  await assert.rejects(setUpFrom(optionsOf(machines.target), '/nonexistent'), { kind: 'notFound' });
  assert.deepEqual(
    await readdir(machines.target, { recursive: true }).then((all) =>
      all.filter((name) => !/^(setup\.lock|parts)$/.test(name)),
    ),
    [],
  );
});

test('a bundle changes nothing where a part that is there already lacks its files', async () => {
  await using machines = await openMachines();
  await makeBundle(optionsOf(machines.root), machines.file);
  const part = join(machines.target, 'parts/kernel-0123456789abcdef');
  await mkdir(part, { recursive: true });
  await writeFile(join(part, 'part.json'), '{}');
  await assert.rejects(setUpFrom(optionsOf(machines.target), machines.file), { kind: 'corrupt', fix: /Remove/ });
  assert.equal(await isThere(join(machines.target, 'assets/current.json')), false);
});

test('a bundle of another version is refused before it is unpacked', async () => {
  await using machines = await openMachines();
  await makeBundle(optionsOf(machines.root), machines.file);
  await mkdir(join(machines.target, 'release/programs'), { recursive: true });
  await writeFile(join(machines.target, 'release/programs/key'), 'fedcba9876543210\n');
  const other = { ...optionsOf(machines.target), repo: join(machines.target, 'release'), version: '2.0.0' };
  await assert.rejects(setUpFrom(other, machines.file), {
    kind: 'failedPrecondition',
    message: /: it is for podvm 1\.2\.3 \(agent [0-9a-f]{16}\), and this is podvm 2\.0\.0 \(agent fedcba9876543210\)$/,
  });
  assert.deepEqual(await readdir(machines.target), ['release']);
});

test('a bundle needs a set-up and a directory for its output', async () => {
  await using machines = await openMachines();
  await assert.rejects(makeBundle(optionsOf(machines.target), machines.file), { kind: 'failedPrecondition' });
  await assert.rejects(makeBundle(optionsOf(machines.root), '/nonexistent/bundle'), { kind: 'failedPrecondition' });
});

test('an interrupted set-up from a bundle leaves no part', async () => {
  await using machines = await openMachines();
  await makeBundle(optionsOf(machines.root), machines.file);
  const options = { ...optionsOf(machines.target), signal: AbortSignal.abort() };
  await assert.rejects(setUpFrom(options, machines.file), (error) => kindOf(error) === 'cancelled');
  assert.deepEqual(await readdir(machines.target), []);
});
