import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import type { DebianArchive } from './debian-archive.ts';
import { type Candidate, explain, parseInstLines } from './debian-packages.ts';
import { parseStanzas } from './package-record.ts';
import { buildRootPackages, kernelImageScript, sysrootPackages } from './recipes.ts';

/** The packages that set-up would currently take from the archives, by part. */
export interface NewestPackages {
  readonly sysroot: readonly Candidate[];
  readonly buildRoot: readonly Candidate[];
  readonly kernel: readonly Candidate[];
  /** Version of crun's source. */
  readonly crun: string;
}

/** Timeout of fetching the archives' indexes, 10 MB the first time, in `ms`. */
const timeoutMs = 180_000;
const maxOutputBytes = 4 * 1024 * 1024;

/**
 * Queries apt, configured as for set-up, with its own lists below the state directory, which are fetched when they have
 * changed. Installs nothing. Errors: `unavailable` when an archive does not answer or an answer fails its check, with
 * apt's message; `cancelled`.
 */
export async function askArchives(root: string, archive: DebianArchive, signal: AbortSignal): Promise<NewestPackages> {
  const directory = join(root, 'apt');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of ['etc/apt.conf.d', 'etc/preferences.d', 'lists/partial', 'cache/archives/partial']) {
    await mkdir(join(directory, name), { recursive: true });
  }
  await writeFile(join(directory, 'status'), ''); // dpkg's database without installed packages
  const configuration = [
    ...Object.entries({
      'Dir::Etc': 'etc',
      'Dir::Etc::sourcelist': 'etc/sources.list',
      'Dir::State': '.',
      'Dir::State::lists': 'lists',
      'Dir::State::status': 'status',
      'Dir::Cache': 'cache',
    }).map(([key, path]) => `${key} "${join(directory, path)}";`),
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::GzipIndexes "true";', // keeps the lists compressed: 20 MB instead of 57
    'Dir::Cache::srcpkgcache "";',
    'APT::Update::Error-Mode "any";',
    ...archive.aptOptions,
  ];
  const sources = archive.sources.filter((line) => line.startsWith('deb ')); // the version of a source is its package's
  await writeFile(join(directory, 'etc/sources.list'), `${sources.join('\n')}\n`);
  await writeFile(join(directory, 'apt.conf'), `${configuration.join('\n')}\n`);
  const simulate = (packages: readonly string[]) =>
    `apt-get -qq -s --no-install-recommends install ${packages.join(' ')} | grep "^Inst"`;
  const script = [
    'apt-get -qq update >&2',
    ...['echo "== sysroot"', simulate(sysrootPackages)],
    ...['echo "== build-root"', simulate(buildRootPackages)],
    ...['echo "== kernel"', ...kernelImageScript],
    ...['echo "== crun"', 'apt-cache --no-all-versions show crun'],
    `rm -f ${join(directory, 'cache')}/*.bin`, // 40 MB that apt makes again in a second
  ].join('\n');
  try {
    // Runs one at a time, since apt's lists are one directory; it ends with this process, in any way.
    const lock = ['--wait', '120', join(directory, 'lock')];
    const { stdout } = await run('setpriv', ['--pdeathsig', 'KILL', 'flock', ...lock, 'sh', '-euc', script], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', APT_CONFIG: join(directory, 'apt.conf') },
      signal,
      timeoutMs,
      maxOutputBytes,
    });
    return parseNewest(stdout);
  } catch (error) {
    throw explain(error);
  }
}

/** Errors: `unavailable` for an archive that lacks a package of set-up. */
export function parseNewest(text: string): NewestPackages {
  const section = (name: string) => new RegExp(`^== ${name}\\n([^]*?)(?=^== |$(?![^]))`, 'm').exec(text)?.[1] ?? '';
  const crun = parseStanzas(section('crun'))[0]?.version.replace(/\+b\d+$/, ''); // rebuilt from the same source
  const found = {
    sysroot: parseInstLines(section('sysroot')),
    buildRoot: parseInstLines(section('build-root')),
    kernel: parseInstLines(section('kernel')),
  };
  const lacking = Object.entries(found).find(([, candidates]) => candidates.length === 0)?.[0];
  if (crun === undefined || lacking !== undefined) {
    throw new PodvmError('unavailable', `Cannot ask the archives: they have no package for the ${lacking ?? 'crun'}`, {
      fix: 'Check the archives of the host: `apt-get update`, `apt-cache policy crun linux-image-cloud-amd64`.',
    });
  }
  return { ...found, crun };
}
