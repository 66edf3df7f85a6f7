import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { suite, type DebianArchive } from './debian-archive.ts';
import { licencesIn, type PackageRecord, parseStanzas } from './package-record.ts';

export interface Extraction {
  readonly archive: DebianArchive;
  /** Packages to unpack with all their dependencies. */
  readonly packages: readonly string[];
  /** Shell script run at the end, with apt configured for the archive; `$1` is the target. */
  readonly script?: string;
  /** Paths in the target that are not needed; removed. */
  readonly unneeded?: readonly string[];
  /** Directory to make. */
  readonly target: string;
  readonly signal: AbortSignal;
}

const versionsFile = 'package-versions';
const indexFile = 'package-index';

/**
 * Unpacks Debian packages into a directory, without running or installing any of them. apt checks the signatures.
 * Errors: `unavailable` when the archive does not answer or an answer fails its check, with apt's last lines.
 */
export async function extractPackages(extraction: Extraction): Promise<readonly PackageRecord[]> {
  const { archive, packages, target, signal } = extraction;
  // apt's simulation lists packages as `Inst NAME (VERSION ...`; dpkg's database stays empty without an installation.
  const hook = [
    'set -eu',
    'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"',
    ...(packages.length === 0
      ? []
      : [`apt-get -qq --no-install-recommends -s install ${packages.join(' ')} | grep "^Inst" >>"$1/${versionsFile}"`]),
    ...(extraction.script === undefined ? [] : [extraction.script]),
    // The signed index' entry of each package, for the record.
    `sed -n 's/^Inst \\([^ ]*\\) (\\([^ ]*\\) .*/\\1=\\2/p' "$1/${versionsFile}" | xargs -r apt-cache --no-all-versions show >"$1/${indexFile}"`,
  ].join('\n');
  await mkdir(target, { recursive: true });
  const temporary = `${target}.tmp`; // beside the new part, so that a killed run leaves nothing elsewhere
  await mkdir(temporary);
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
        '-',
      ],
      {
        signal,
        timeoutMs: 15 * 60_000,
        input: archive.sources.map((line) => `${line}\n`).join(''),
        env: { ...defaultEnv(), TMPDIR: temporary },
      },
    );
  } catch (error) {
    throw explain(error);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  const records = await Promise.all(
    parseStanzas(await readFile(join(target, indexFile), 'utf8')).map(async (record) => {
      const copyright = await readFileIfThere(join(target, 'usr/share/doc', record.name, 'copyright'));
      return { ...record, licences: [...licencesIn(copyright ?? '')] };
    }),
  );
  for (const path of extraction.unneeded ?? []) await rm(join(target, path), { recursive: true, force: true });
  for (const name of [versionsFile, indexFile]) await rm(join(target, name));
  return records;
}

/** A package that apt would install. */
export interface Candidate {
  readonly name: string;
  readonly version: string;
  /** Whether it comes from the security archive. */
  readonly isSecurity: boolean;
}

/** `Inst name (version origin:release/suite [arch])` lines of an apt simulation. */
export function parseInstLines(text: string): readonly Candidate[] {
  return [...text.matchAll(/^Inst (\S+) \((\S+)([^\n]*)/gm)].map(([, name = '', version = '', origins = '']) => ({
    name,
    version,
    isSecurity: origins.includes('Debian-Security:'),
  }));
}

/** Explains a failed run of apt to an operator. */
export function explain(error: unknown): unknown {
  if (!(error instanceof PodvmError) || error.kind !== 'internal') return error;
  return new PodvmError(
    'unavailable',
    `Cannot fetch packages of Debian ${suite}: ${reasonIn(error.tail.map((line) => printable(line)))}`,
    {
      cause: error,
      tail: error.tail,
      fix: 'Check that `apt-get update` works on this host (network, proxy, mirror), then run `podvm setup` again.',
    },
  );
}

/** The last line that explains the failure: apt's own error says more than mmdebstrap's "setup failed" after it. */
export function reasonIn(tail: readonly string[]): string {
  return (
    tail.find((line) => /^(E|Err|W): |^Err:/.test(line) && !line.includes('setup failed')) ??
    tail.at(-1) ??
    'no reason given'
  );
}
