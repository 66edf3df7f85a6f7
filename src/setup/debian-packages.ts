import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { suite, type DebianArchive } from './debian-archive.ts';

/** Package name -> version. */
export type Versions = Readonly<Record<string, string>>;

export interface Extraction {
  readonly archive: DebianArchive;
  /** Packages to unpack with all they depend on. */
  readonly packages: readonly string[];
  /** Shell run at the end with apt configured for the archive; `$1` is the target. */
  readonly script?: string;
  /** Paths in the target that nobody here reads; removed. */
  readonly unneeded?: readonly string[];
  /** Directory to make. */
  readonly target: string;
  readonly signal: AbortSignal;
}

const versionsFile = 'package-versions';

/**
 * Unpacks Debian packages into a directory; nothing of them is run, nothing installed. Signatures are checked by apt.
 * Errors: `unavailable` when the archive does not answer or an answer fails its check, with apt's last lines.
 */
export async function extractPackages(extraction: Extraction): Promise<Versions> {
  const { archive, packages, target, signal } = extraction;
  // apt's simulation prints what it takes as `Inst NAME (VERSION ...`; dpkg's own database stays empty without installing.
  const hook = [
    'set -eu',
    'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"',
    ...(packages.length === 0
      ? []
      : [`apt-get -qq --no-install-recommends -s install ${packages.join(' ')} | grep "^Inst" >>"$1/${versionsFile}"`]),
    ...(extraction.script === undefined ? [] : [extraction.script]),
  ].join('\n');
  await mkdir(target, { recursive: true });
  try {
    await run(
      'mmdebstrap',
      [
        '--quiet',
        '--variant=extract',
        '--mode=root',
        '--architectures=amd64',
        '--skip=chroot/mount',
        ...(packages.length === 0 ? [] : [`--include=${packages.join(',')}`]),
        ...['APT::Sandbox::User "root";', ...archive.aptOptions].map((option) => `--aptopt=${option}`),
        `--extract-hook=${hook}`,
        suite,
        target,
        ...(archive.sources.length === 0 ? [] : ['-']),
      ],
      { signal, timeoutMs: 15 * 60_000, input: archive.sources.map((line) => `${line}\n`).join('') },
    );
  } catch (error) {
    throw explain(error);
  }
  for (const path of extraction.unneeded ?? []) await rm(join(target, path), { recursive: true, force: true });
  const versions = parseInstLines(await readFile(join(target, versionsFile), 'utf8'));
  await rm(join(target, versionsFile));
  return versions;
}

/** `Inst name (version suite [arch])` lines of an apt simulation. */
export function parseInstLines(text: string): Versions {
  const versions: Record<string, string> = {};
  for (const [, name, version] of text.matchAll(/^Inst (\S+) \((\S+)/gm)) {
    if (name !== undefined && version !== undefined) versions[name] = version;
  }
  return versions;
}

function explain(error: unknown): unknown {
  if (!(error instanceof PodvmError) || error.kind !== 'internal') return error;
  return new PodvmError('unavailable', `Cannot fetch packages of Debian ${suite}: ${reasonIn(error.tail)}`, {
    cause: error,
    tail: error.tail,
    fix: 'Check that `apt-get update` works on this host (network, proxy, mirror), then run `podvm setup` again.',
  });
}

/** apt's own complaint says more than mmdebstrap's "setup failed" after it. */
export function reasonIn(tail: readonly string[]): string {
  return (
    tail.find((line) => /^(E|Err|W): |^Err:/.test(line) && !line.includes('setup failed')) ??
    tail.at(-1) ??
    'no reason given'
  );
}
