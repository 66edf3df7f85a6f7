import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ContainerdPlaces, installContainerd, uninstallContainerd } from './install-containerd.ts';

const signal = new AbortController().signal;
const podvm = { shimSocketPath: '/run/podvm/shim.sock', version: '1.2.3' };

/** A node whose containerd only tells its version, and dumps the parts that it reads. */
async function openNode(version: string, readsParts = true) {
  const root = await mkdtemp(join(tmpdir(), 'podvm-install-'));
  const places: ContainerdPlaces = {
    containerd: join(root, 'containerd'),
    configuration: join(root, 'etc'),
    programs: join(root, 'bin'),
  };
  const dump = readsParts ? `cat ${root}/etc/conf.d/*.toml` : ':';
  const script = `#!/bin/sh\ncase "$*" in *dump) ${dump} ;; *) echo 'containerd github.com/x ${version} 1234' ;; esac\n`;
  await writeFile(places.containerd, script);
  await chmod(places.containerd, 0o755);
  return { root, places, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

const install = (places: ContainerdPlaces, isDry = false) => installContainerd(podvm, { isDry }, places, signal);

test('installContainerd() writes launcher and part, twice the same, and uninstallContainerd() removes both', async () => {
  await using node = await openNode('v2.2.9');
  const said = await install(node.places);
  assert.match(
    said,
    /^containerd 2\.2\.9\nwrote .*\/bin\/containerd-shim-podvm-v2\nwrote .*\/conf\.d\/podvm\.toml\nthen restart/,
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

test('installContainerd() says what to add where containerd does not read parts', async () => {
  await using two = await openNode('v2.4.2', false);
  assert.match(await install(two.places), /add to .*config\.toml:\n    imports = \[".*\/etc\/conf\.d\/\*\.toml"\]\n/);
  await using one = await openNode('1.7.35');
  const said = await install(one.places);
  assert.match(said, /add to .*config\.toml:\n    # Made by podvm[^]*version = 2\n[^]*"io\.containerd\.grpc\.v1\.cri"/);
  assert.deepEqual(await readdir(one.root).then((names) => names.includes('etc')), false);
});

test('installContainerd() writes nothing when it is dry, over a foreign file, or without containerd', async () => {
  await using node = await openNode('v2.2.9');
  assert.match(await install(node.places, true), /would write .*\/containerd-shim-podvm-v2\n    #!\/bin\/sh\n/);
  assert.deepEqual(await readdir(node.root), ['containerd']);
  await mkdir(node.places.programs);
  await writeFile(join(node.places.programs, 'containerd-shim-podvm-v2'), 'of another program');
  await assert.rejects(install(node.places), { kind: 'failedPrecondition', message: /podvm has not made it/ });
  assert.deepEqual(await uninstallContainerd(node.places), []);
  const none = { ...node.places, containerd: join(node.root, 'none') };
  await assert.rejects(install(none), { kind: 'failedPrecondition', message: /this node has none/ });
});
