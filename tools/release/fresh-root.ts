import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TriedDistribution } from '#host/distribution.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { readHostTools } from '#setup/host-tools.ts';
import { findDebianArchive, suite } from '#setup/parts/debian-archive.ts';

const timeoutMs = 30 * 60_000;

/** Returns the `sources.list` of a distribution; `work` is for files that it needs. */
type Archive = (work: string, signal: AbortSignal) => Promise<readonly string[]>;

/** Package archive of each distribution. */
const archives = {
  'debian 12': debian('bookworm'),
  'debian 13': debian('trixie'),
  'ubuntu 24.04': ubuntu('noble'),
} as const satisfies Record<TriedDistribution, Archive>;

/** Debian's archive as this host reaches it. */
function debian(release: string): Archive {
  return async (_work, signal) =>
    (await findDebianArchive(undefined, signal)).sources.map((line) => line.replaceAll(suite, release));
}

/** Ubuntu's own archive: `universe` has skopeo and the CNI plugins. */
function ubuntu(release: string): Archive {
  return async (work, signal) => {
    const keyring = await ubuntuKeyring(work, signal);
    const suites = [release, `${release}-updates`, `${release}-security`];
    return suites.map((one) => `deb [signed-by=${keyring}] http://archive.ubuntu.com/ubuntu ${one} main universe`);
  };
}

/** Ubuntu's keyring of this host; otherwise the package with it, recognised by its digest, since Debian 12 has none. */
async function ubuntuKeyring(work: string, signal: AbortSignal): Promise<string> {
  const file = 'usr/share/keyrings/ubuntu-archive-keyring.gpg';
  if (await isThere(`/${file}`)) return `/${file}`;
  const url = 'http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb';
  const sha256 = '36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8';
  const response = await fetch(url, { signal });
  assert.ok(response.ok, `cannot fetch ${url}: status ${response.status}`);
  const content = Buffer.from(await response.arrayBuffer());
  assert.equal(createHash('sha256').update(content).digest('hex'), sha256, `${url} is another file`);
  await writeFile(join(work, 'keyring.deb'), content);
  await run('dpkg-deb', ['--extract', join(work, 'keyring.deb'), join(work, 'keyring')], { signal });
  return join(work, 'keyring', file);
}

/**
 * Makes a root directory of the distribution in `work`, which is empty, with the packages that podvm needs of a host, and
 * these. Returns its path.
 */
export async function makeHostRoot(
  distribution: TriedDistribution,
  more: readonly string[],
  work: string,
  signal: AbortSignal,
): Promise<string> {
  const tools = (await readHostTools())
    .filter(({ makesParts, forUsers }) => !makesParts && !forUsers)
    .map((tool) => tool.package);
  return await makeFreshRoot(distribution, [...more, ...tools], work, signal);
}

/** Makes a root directory of the distribution in `work`, which is empty, with these packages. Returns its path. */
export async function makeFreshRoot(
  distribution: TriedDistribution,
  packages: readonly string[],
  work: string,
  signal: AbortSignal,
): Promise<string> {
  const root = join(work, 'root');
  const sources = await archives[distribution](work, signal);
  const release = sources[0]?.split(' ')[3] ?? '';
  await run('mmdebstrap', ['--variant=apt', `--include=${packages.join(',')}`, release, root, '-'], {
    input: `${sources.join('\n')}\n`,
    timeoutMs,
    signal,
  });
  return root;
}

/**
 * Returns the words of a command that runs another one in the root directory, in namespaces and with all capabilities.
 * `shown`: more read-only directories, as path inside -> path on the host.
 */
export function insideRoot(root: string, shown: Readonly<Record<string, string>>): readonly string[] {
  return [
    ...['bwrap', '--dev-bind', root, '/', '--dev-bind', '/dev', '/dev', '--proc', '/proc', '--bind', '/sys', '/sys'],
    ...['--tmpfs', '/run', ...Object.entries(shown).flatMap(([inside, host]) => ['--ro-bind', host, inside])],
    ...['--unshare-pid', '--unshare-net', '--unshare-uts', '--unshare-ipc', '--die-with-parent', '--cap-add', 'ALL'],
    ...['--clearenv', '--setenv', 'PATH', '/usr/sbin:/usr/bin:/sbin:/bin', '--'],
  ];
}
