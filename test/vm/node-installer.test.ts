import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { sysroot } from '../images/image-tree.ts';
import { repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const settingsFile = '/etc/podvm/podvm.yaml';
const mark = '/opt/podvm/.installed-by-podvm-node';
const unitFile = '/etc/systemd/system/podvm.service';
const withSettings = ['install', '--settings', '/settings.yaml'];

/**
 * Root directories of the node image and of a host without systemd, whose programs only note their calls: what is tried is
 * the entry point. Podvm fails with the file `refuses` beside it, and its service with `fails`.
 */
async function openInstaller() {
  const image = await mkdtemp('/var/tmp/podvm-node-image-');
  const host = join(image, 'host');
  const busybox = join(await sysroot(), 'usr/bin/busybox');
  for (const path of ['bin', 'dev', 'proc', 'podvm/program', 'host/bin', 'host/proc', 'host/usr/bin', 'host/opt'])
    await mkdir(join(image, path), { recursive: true });
  await mkdir(join(host, 'etc/systemd/system'), { recursive: true });
  for (const path of ['bin/busybox', 'host/bin/sh']) await copyFile(busybox, join(image, path));
  const files = {
    'dev/null': '',
    'settings.yaml': 'logFormat: json\n',
    'podvm/release': 'podvm 1\n',
    'podvm/podvm.bundle': '',
    'podvm/podvm.service': await readFile(join(repo, 'examples/podvm.service'), 'utf8'),
    'podvm/podvm-node': await readFile(join(repo, 'tools/release/node-image/podvm-node'), 'utf8'),
    'podvm/program/podvm': '#!/bin/sh\necho "podvm $*" >>/calls\n[ ! -e "${0%/*}/refuses" ]\n',
    'host/usr/bin/systemctl':
      '#!/bin/sh\necho "systemctl $*" >>/calls\n[ "$1" != restart ] || [ ! -e /opt/podvm/fails ]\n',
    'host/usr/bin/journalctl': '#!/bin/sh\necho "this is why"\n',
    'host/usr/bin/nsenter': '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n',
  };
  for (const [path, text] of Object.entries(files)) await writeFile(join(image, path), text, { mode: 0o755 });
  const enter = `set -eu
for directory in proc host/proc; do mount -t proc proc ${image}/$directory; done
mount --bind /dev/null ${image}/dev/null
chroot ${image} /bin/busybox --install -s /bin
exec chroot ${image} /podvm/podvm-node "$@"`;
  const node = async (...words: readonly string[]) => {
    const argv = ['--mount', '--propagation', 'private', '--pid', '--fork', 'sh', '-c', enter, 'podvm-node', ...words];
    const { code, stderr } = await run('unshare', argv, {
      okCodes: 'any',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    return { code, stderr };
  };
  const at = (path: string) => join(host, path);
  return {
    node,
    at,
    /** Makes the image that of another version, with these files. */
    release: async (version: number, files: Readonly<Record<string, string>> = {}) => {
      for (const name of ['refuses', 'fails']) await rm(join(image, 'podvm/program', name), { force: true });
      const all = { 'podvm/release': `podvm ${version}\n`, ...files };
      for (const [path, text] of Object.entries(all)) await writeFile(join(image, path), text);
    },
    read: async (path: string) => await readFile(at(path), 'utf8'),
    write: async (path: string, text: string) => {
      await mkdir(dirname(at(path)), { recursive: true });
      await writeFile(at(path), text);
    },
    has: async (path: string) => await isThere(at(path)),
    [Symbol.asyncDispose]: async () => await rm(image, { recursive: true }),
  };
}

describe('the entry point of the node image', { skip: await whyNoVm() }, () => {
  test('the settings of an installation go with it, or with the next one that has none', async () => {
    await using host = await openInstaller();
    for (const next of [['install'], ['uninstall']]) {
      assert.match((await host.node(...withSettings)).stderr, /podvm-node: installed\n$/);
      assert.equal(await host.read(settingsFile), 'logFormat: json\n');
      assert.match(await host.read(unitFile), /^ExecStart=.* --config \/etc\/podvm\/podvm\.yaml$/m);
      assert.deepEqual((await host.node(...next)).code, 0);
      assert.ok(!(await host.has('/etc/podvm')), next.join(' '));
    }
    assert.ok(!(await host.has(unitFile)));
  });

  test('settings of the administrator stay as they are', async () => {
    await using host = await openInstaller();
    await host.write(settingsFile, 'pool: 3\n');
    const { code, stderr } = await host.node(...withSettings);
    assert.equal(code, 1);
    assert.match(stderr, /^podvm-node: \/etc\/podvm\/podvm\.yaml of the host is there, and not from this image\n/);
    assert.ok(!(await host.has('/opt/podvm')), 'nothing was installed');
    assert.equal((await host.node('install')).code, 0);
    assert.doesNotMatch(await host.read(unitFile), /--config/);
    assert.match((await host.node(...withSettings)).stderr, /podvm\.yaml of the host is there/);
    assert.match((await host.node('uninstall')).stderr, /podvm-node: removed\n$/);
    assert.equal(await host.read(settingsFile), 'pool: 3\n');
  });

  test('an upgrade that was interrupted between the two renames of the program is done again, or removed', async () => {
    await using host = await openInstaller();
    for (const next of ['install', 'uninstall']) {
      assert.equal((await host.node('install')).code, 0);
      await rename(host.at('/opt/podvm'), host.at('/opt/podvm.old'));
      const { code, stderr } = await host.node(next);
      assert.equal(code, 0, stderr);
      assert.ok(!(await host.has('/opt/podvm.old')), next);
    }
    assert.ok(!(await host.has(unitFile)));
    assert.ok(!(await host.has('/opt/podvm')));
  });

  test('a version for which the host cannot be set up replaces nothing', async () => {
    await using host = await openInstaller();
    assert.equal((await host.node(...withSettings)).code, 0);
    const installed = async () => await Promise.all([mark, unitFile, settingsFile].map(host.read));
    const before = await installed();
    await host.release(2, { 'settings.yaml': 'pool: many\n', 'podvm/program/refuses': '' });
    await rm(host.at('calls'));
    for (let turn = 0; turn < 2; turn += 1) assert.equal((await host.node(...withSettings)).code, 1);
    assert.deepEqual(await installed(), before);
    assert.ok(!(await host.has('/opt/podvm/refuses')));
    const setUp = 'podvm setup --from /opt/podvm.new/podvm.bundle --config /opt/podvm.new/podvm.yaml\n';
    assert.equal(await host.read('calls'), setUp.repeat(2), 'the service ran on');
    await host.release(1, { 'settings.yaml': 'logFormat: json\n' });
    assert.match((await host.node(...withSettings)).stderr, /installed already/);
    assert.deepEqual(await readdir(host.at('opt')), ['podvm'], 'the copy of the other one is gone');
    assert.equal((await host.node('uninstall')).code, 0);
    assert.deepEqual(await readdir(host.at('opt')), []);
  });

  test('an upgrade that was killed when its parts were current is rolled back with the parts of the version before', async () => {
    for (const words of [['install'], withSettings]) {
      await using host = await openInstaller();
      assert.equal((await host.node(...words)).code, 0);
      await host.write('/opt/podvm.new/.installed-by-podvm-node.started', ''); // as it is copied before the set-up
      await host.write('/opt/podvm/refuses', '');
      await rm(host.at('calls'));
      assert.equal((await host.node(...words)).code, 1);
      await rm(host.at('/opt/podvm/refuses'));
      assert.match((await host.node(...words)).stderr, /installed already/);
      const setUp = `podvm setup --from /opt/podvm/podvm.bundle${words === withSettings ? ` --config ${settingsFile}` : ''}\n`;
      assert.equal(await host.read('calls'), setUp.repeat(2), 'the next one tries again');
      assert.deepEqual(await readdir(host.at('opt')), ['podvm']);
      assert.match((await host.node(...words)).stderr, /installed already/);
      assert.equal(await host.read('calls'), setUp.repeat(2), 'nothing was left to do');
    }
  });

  test('what an installation has left for which the host could not be set up is removed', async () => {
    await using host = await openInstaller();
    await host.release(1, { 'podvm/program/refuses': '' });
    assert.equal((await host.node('install')).code, 1);
    const { code, stderr } = await host.node('uninstall');
    assert.equal(code, 0, stderr);
    assert.deepEqual(await readdir(host.at('opt')), []);
    await host.write('/opt/podvm.new/own', 'of the administrator');
    assert.equal((await host.node('uninstall')).code, 0);
    assert.ok(await host.has('/opt/podvm.new/own'));
  });

  test('the version before is started, too, if its parts cannot be put back', async () => {
    await using host = await openInstaller();
    await mkdir(host.at('run/systemd/system'), { recursive: true });
    assert.equal((await host.node('install')).code, 0);
    await host.write('/opt/podvm/refuses', '');
    await host.release(2, { 'podvm/program/fails': '' });
    const { code, stderr } = await host.node('install');
    assert.equal(code, 1);
    assert.match(stderr, /its parts are not set up\n.*this version does not serve, and is not installed\n/);
    assert.match(
      await host.read('calls'),
      /setup --from \/opt\/podvm\/podvm\.bundle\n(?:systemctl .*\n)*systemctl restart podvm\.service\n$/,
    );
    assert.match(await host.read(mark), /^podvm 1$/m);
  });

  test('after a version that does not serve, the one before serves with its unit, settings and parts', async () => {
    for (const [first, next] of [
      [withSettings, withSettings],
      [withSettings, ['install']],
      [['install'], withSettings],
    ] as const) {
      await using host = await openInstaller();
      await mkdir(host.at('run/systemd/system'), { recursive: true });
      assert.equal((await host.node(...first)).code, 0);
      const files = [mark, unitFile, ...(first === withSettings ? [settingsFile] : [])];
      const installed = async () => await Promise.all(files.map(host.read));
      const before = await installed();
      await host.release(2, { 'settings.yaml': 'pool: 3\n', 'podvm/program/fails': '' });
      for (let turn = 0; turn < 2; turn += 1) {
        const { code, stderr } = await host.node(...next);
        assert.equal(code, 1);
        assert.match(stderr, /this is why\n.*going back.*\n.*this version does not serve, and is not installed\n/);
        assert.deepEqual(await installed(), before);
        assert.equal(await host.has('/etc/podvm'), first === withSettings);
        const last = (await host.read('calls')).split('\n').slice(-6, -1);
        assert.deepEqual(last, [
          `podvm setup --from /opt/podvm/podvm.bundle${first === withSettings ? ` --config ${settingsFile}` : ''}`,
          'systemctl reset-failed podvm.service',
          'systemctl daemon-reload',
          'systemctl enable --quiet podvm.service',
          'systemctl restart podvm.service',
        ]);
      }
      await host.release(3);
      assert.match((await host.node(...next)).stderr, /podvm-node: installed\n$/);
      assert.match(await host.read(mark), /^podvm 3$/m);
      assert.deepEqual(await readdir(host.at('opt')), ['podvm']);
    }
  });

  test('a program or a service of another origin stays as it is', async () => {
    await using host = await openInstaller();
    for (const path of ['/opt/podvm/own', unitFile]) {
      await host.write(path, 'own\n');
      const { code, stderr } = await host.node('install');
      assert.equal(code, 1);
      assert.match(stderr, / of the host is there, and not from this image\n/);
      assert.match((await host.node('uninstall')).stderr, /there is nothing to remove/);
      assert.equal(await host.read(path), 'own\n');
      await rm(host.at(path));
      await rm(host.at('/opt/podvm'), { recursive: true, force: true });
    }
  });
});
