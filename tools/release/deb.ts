import { chmod, copyFile, mkdir, mkdtempDisposable, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { defaultEnv, run } from '#host/process/run.ts';
import { readHostTools } from '#setup/host-tools.ts';
import { completion } from '../../src/cli/completion.ts';
import { helpProgram } from '../../src/cli/help-pages.ts';
import { manualPage } from './command-pages.ts';
import { addNode, unitOf } from './node-program.ts';
import { makeProgramTree } from './program-tree.ts';
import type { Release } from './release.ts';

const maintainer = 'PodVM <podvm@podvm.dev>';
const timeoutMs = 15 * 60_000;
const program = 'usr/lib/podvm';
const docs = 'usr/share/doc/podvm';
const scripts = ['postinst', 'prerm', 'postrm'];

/**
 * Makes `podvm_VERSION_amd64.deb` in `directory`: the program with Node, a service and a manual page. Returns its name.
 */
export async function makeDeb(release: Release, directory: string): Promise<string> {
  const { version, signal } = release;
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-deb-'));
  const root = join(work.path, 'root');
  await makeDebFiles(release, root);
  const name = `podvm_${version}_amd64.deb`;
  const env = { ...defaultEnv(), SOURCE_DATE_EPOCH: String(release.epoch) };
  const args = ['--root-owner-group', '-Zxz', '-z6', '--build', root, join(directory, name)];
  await run('dpkg-deb', args, { env, signal, timeoutMs });
  return name;
}

/** Makes the content of the package in `root`: its files, and its control files in `DEBIAN`. */
export async function makeDebFiles(release: Release, root: string): Promise<void> {
  const { repo, version, signal } = release;
  const at = (path: string) => join(root, path);
  await makeProgramTree(release, at(program));
  await addNode(release, at(`${program}/node`));
  await addDocs(root);
  const files: Readonly<Record<string, string>> = {
    'usr/lib/systemd/system/podvm.service': await unitOf(repo, '/usr/bin/podvm'),
    'usr/lib/tmpfiles.d/podvm.conf': await readFile(join(repo, 'tools/release/debian/tmpfiles.conf'), 'utf8'),
    'usr/share/bash-completion/completions/podvm': completion(helpProgram(), 'bash'),
    'usr/share/fish/vendor_completions.d/podvm.fish': completion(helpProgram(), 'fish'),
    'usr/share/lintian/overrides/podvm': await readFile(join(repo, 'tools/release/debian/lintian-overrides'), 'utf8'),
    'usr/share/man/man1/podvm.1': manualPage(version, dateOf(release).toISOString().slice(0, 10)),
    [`${docs}/changelog`]: changelogOf(release),
  };
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(at(path)), { recursive: true });
    await writeFile(at(path), text);
  }
  await run('gzip', ['-9n', at('usr/share/man/man1/podvm.1'), at(`${docs}/changelog`)], { signal });
  await mkdir(at('usr/bin'), { recursive: true });
  await symlink('../lib/podvm/podvm', at('usr/bin/podvm'));
  await run('chmod', ['-R', 'u=rwX,go=rX', root], { signal }); // does not depend on the umask

  await mkdir(at('DEBIAN'));
  const { stdout: size } = await run('du', ['-sk', '--apparent-size', root], { signal });
  await writeFile(at('DEBIAN/control'), await controlOf(version, Number.parseInt(size, 10)));
  await writeFile(at('DEBIAN/md5sums'), await md5sums(root, signal));
  for (const name of scripts) {
    await copyFile(join(repo, 'tools/release/debian', name), at(`DEBIAN/${name}`));
    await chmod(at(`DEBIAN/${name}`), 0o755);
  }
}

/** Debian packages refer to this file instead of containing the text. */
const commonApache = '/usr/share/common-licenses/Apache-2.0';
const apache = /Apache License\s+Version 2\.0, January 2004[^]*?END OF TERMS AND CONDITIONS/g;

/** Moves the documentation to its place, and writes the licences in Debian's form. */
async function addDocs(root: string): Promise<void> {
  const at = (path: string) => join(root, path);
  await mkdir(at(docs), { recursive: true });
  for (const name of ['README.md', 'docs', 'examples']) await rename(at(join(program, name)), at(join(docs, name)));
  await rm(at(join(docs, 'examples/podvm.service'))); // it is installed as the service
  await rename(at(join(program, 'CHANGELOG.md')), at(join(docs, 'NEWS.md')));
  const licences = await readFile(at(join(program, 'LICENCES.txt')), 'utf8');
  const node = await readFile(at(join(program, 'node/LICENSE')), 'utf8');
  const head = `PodVM is under the Apache License, version 2.0: see ${commonApache}.
Copyright: the authors of PodVM.

`;
  const whole = `${head}${licences}\n\nNode.js, in ${program}/node\n\n${node}`;
  await writeFile(at(join(docs, 'copyright')), whole.replaceAll(apache, `Apache License 2.0: see ${commonApache}`));
  for (const name of ['LICENSE', 'LICENCES.txt', 'node/LICENSE']) await rm(at(join(program, name)));
}

/** The host packages, and those that Node needs. */
async function controlOf(version: string, installedKiB: number): Promise<string> {
  const tools = await readHostTools();
  const names = (isOptional: boolean) =>
    tools.filter((tool) => (tool.makesParts || tool.forUsers) === isOptional).map((tool) => tool.package);
  return `Package: podvm
Version: ${version}
Architecture: amd64
Maintainer: ${maintainer}
Installed-Size: ${installedKiB}
Depends: libc6 (>= 2.36), libgcc-s1, libstdc++6, ${names(false).join(', ')}
Recommends: ${names(true).join(', ')}
Section: admin
Priority: optional
Description: runs every Kubernetes pod in its own microVM
 PodVM runs pods from YAML files without a cluster, and serves CRI to a kubelet.
 Each pod gets a virtual machine of its own, which starts in a third of a
 second, and which shares volumes and joins networks as a container does.
 .
 The service podvm is disabled at first. The parts of the virtual machines
 are made from Debian's archive by "podvm setup", or installed from a bundle.
`;
}

const dateOf = ({ epoch }: Release) => new Date(epoch * 1000);

/** A change log in Debian's format (deb-changelog(5)). */
function changelogOf(release: Release): string {
  const date = dateOf(release).toUTCString().replace('GMT', '+0000');
  return `podvm (${release.version}) unstable; urgency=medium

  * Release ${release.version}; NEWS.md beside this file lists the changes.

 -- ${maintainer}  ${date}
`;
}

async function md5sums(root: string, signal: AbortSignal): Promise<string> {
  const find = "find * -type f ! -path 'DEBIAN/*' -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
  return (await run('sh', ['-c', find], { cwd: root, signal })).stdout;
}
