import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { serveFakeDelegate } from '#cri/testing/fake-delegate.ts';
import {
  type ContainerdPlaces,
  type InstallChoices,
  installContainerd,
  uninstallContainerd,
} from './install-containerd.ts';

const signal = new AbortController().signal;
const podvm = { shimSocketPath: '/run/podvm/shim.sock', version: '1.2.3' };

/** A node whose containerd reports its version, and dumps its main file and, unless that has imports, the parts. */
async function openNode(version: string, main?: string) {
  const root = await mkdtemp(join(tmpdir(), 'podvm-install-'));
  const places: ContainerdPlaces = {
    containerd: join(root, 'containerd'),
    systemctl: join(root, 'systemctl'),
    socket: join(root, 'containerd.sock'),
    configuration: join(root, 'etc'),
    programs: join(root, 'bin'),
  };
  const config = join(root, 'etc/config.toml');
  const dump = `grep -qs refused "$2" && { echo 'it is refused' >&2; exit 1; }; cat "$2" 2>&-; grep -qs imports "$2" || cat ${root}/etc/conf.d/*.toml 2>&-; :`;
  const scripts = {
    [places.containerd]: `case "$*" in *dump) ${dump} ;; *) echo 'containerd github.com/x ${version} 1234' ;; esac`,
    [places.systemctl]: `echo "$*" >>${root}/restarts`,
  };
  for (const [path, script] of Object.entries(scripts)) {
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
  }
  if (main !== undefined) {
    await mkdir(places.configuration);
    await writeFile(config, main);
  }
  return { root, places, config, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

const install = (places: ContainerdPlaces, choices: Partial<InstallChoices> = {}) =>
  installContainerd(podvm, { isDry: false, restarts: false, ...choices }, places, signal);

test('installContainerd() writes launcher and part and is idempotent; uninstallContainerd() removes both', async () => {
  await using node = await openNode('v2.2.9');
  const before = process.umask(0o077);
  const said = await install(node.places).finally(() => process.umask(before));
  assert.match(
    said,
    /^containerd 2\.2\.9\nwrote .*\/conf\.d\/podvm\.toml\nwrote .*\/bin\/containerd-shim-podvm-v2\nthen restart/,
  );
  const launcher = join(node.places.programs, 'containerd-shim-podvm-v2');
  assert.equal((await stat(launcher)).mode & 0o777, 0o755);
  assert.match(await readFile(launcher, 'utf8'), /unix:\/\/\/run\/podvm\/shim\.sock/);
  const part = await readFile(join(node.root, 'etc/conf.d/podvm.toml'), 'utf8');
  assert.match(part, /version = 3\n[^]*"io\.containerd\.cri\.v1\.runtime"\.containerd\.runtimes\.podvm\]/);
  assert.ok(part.includes(`runtime_path = "${launcher}"`));
  assert.equal(await install(node.places), said);
  assert.equal((await uninstallContainerd(node.places)).length, 2);
  assert.deepEqual(await readdir(node.places.programs), []);
  assert.deepEqual(await uninstallContainerd(node.places), []);
});

test('installContainerd() adds its section to the only file that an older containerd reads; uninstalling removes only that', async () => {
  const main = 'version = 2\n[debug]\n  level = "info"';
  await using node = await openNode('1.7.35', main);
  assert.match(await install(node.places), /added the runtime podvm to .*config\.toml\n/);
  const changed = await readFile(node.config, 'utf8');
  assert.match(changed, /^version = 2\n\[debug\]\n {2}level = "info"\n# Made by podvm: begin/);
  assert.match(changed, /"io\.containerd\.grpc\.v1\.cri"\.containerd\.runtimes\.podvm\]/);
  assert.equal(await readFile(`${node.config}.before-podvm`, 'utf8'), main);
  await install(node.places);
  assert.equal(await readFile(node.config, 'utf8'), changed);
  assert.equal((await uninstallContainerd(node.places)).length, 2);
  assert.equal(await readFile(node.config, 'utf8'), `${main}\n`);
  assert.deepEqual(await readdir(node.places.configuration), ['config.toml']);
});

test('installContainerd() creates a missing file, and uninstallContainerd() removes it', async () => {
  await using node = await openNode('1.6.20');
  await install(node.places);
  assert.match(await readFile(node.config, 'utf8'), /^version = 2\n# Made by podvm: begin/);
  await uninstallContainerd(node.places);
  assert.deepEqual(await readdir(node.places.configuration), []);
});

test('installContainerd() uses the main file, in its version, if its imports omit files of parts', async () => {
  await using node = await openNode('v2.4.2', 'version = 2\nimports = ["/etc/other.toml"]\n');
  await install(node.places);
  assert.match(await readFile(node.config, 'utf8'), /"io\.containerd\.grpc\.v1\.cri"/);
  assert.deepEqual(await readdir(join(node.places.configuration, 'conf.d')), []);
});

for (const [what, main, message] of [
  ['containerd refuses', 'version = 2\n# refused\n', /containerd refuses it: .*it is refused/],
  ['has version 1', '[debug]\n', /it has version 1, not 2 or 3/],
  ['is no TOML', 'version = = 2\n', /Cannot add podvm to .*config\.toml: Invalid TOML/],
] as const) {
  test(`installContainerd() does not change a configuration that ${what}`, async () => {
    await using node = await openNode('1.7.35', main);
    await assert.rejects(install(node.places), { kind: 'failedPrecondition', message });
    assert.equal(await readFile(node.config, 'utf8'), main);
    assert.deepEqual(await readdir(node.places.configuration), ['config.toml']);
    assert.ok(!(await readdir(node.root)).includes('bin'));
  });
}

test('installContainerd() restarts containerd on request, and runs a pod there', async () => {
  await using node = await openNode('v2.2.9');
  await using containerd = await serveFakeDelegate(node.places.socket);
  assert.match(await install(node.places, { restarts: true }), /\nrestarted containerd, and ran a pod of podvm there;/);
  assert.equal(await readFile(join(node.root, 'restarts'), 'utf8'), 'restart containerd\n');
  assert.deepEqual(containerd.calls, ['version', 'runPodSandbox', 'stopPodSandbox', 'removePodSandbox']);
  assert.equal(containerd.pods.size, 0);
  containerd.failing.set('runPodSandbox', new PodvmError('internal', 'no network'));
  await assert.rejects(install(node.places, { restarts: true }), {
    kind: 'failedPrecondition',
    message: 'Podvm is installed in containerd, but no pod runs there: no network',
  });
  containerd.failing.delete('runPodSandbox');
  containerd.failing.set('stopPodSandbox', new PodvmError('internal', 'it hangs'));
  await assert.rejects(install(node.places, { restarts: true }), /no pod runs there: it hangs/);
  assert.equal(containerd.pods.size, 0, 'the pod of a failed try is removed');
});

test('installContainerd() writes nothing in a dry run, over a foreign file, or without containerd', async () => {
  await using node = await openNode('v2.2.9');
  assert.match(
    await install(node.places, { isDry: true }),
    /would write .*\/containerd-shim-podvm-v2\n    #!\/bin\/sh\n/,
  );
  assert.deepEqual(await readdir(node.root), ['containerd', 'systemctl']);
  await mkdir(node.places.programs);
  await writeFile(join(node.places.programs, 'containerd-shim-podvm-v2'), 'of another program');
  await assert.rejects(install(node.places), { kind: 'failedPrecondition', message: /podvm did not make it/ });
  assert.deepEqual(await uninstallContainerd(node.places), []);
  const none = { ...node.places, containerd: join(node.root, 'none') };
  await assert.rejects(install(none), { kind: 'failedPrecondition', message: /this node has none/ });
});
