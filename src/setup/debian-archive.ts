import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';

/** The Debian release that VMM, guest kernel and tools are taken from on every host (design: one behaviour to test). */
export const suite = 'trixie';

/** Where Debian's archive is, and how the host reaches it. */
export interface DebianArchive {
  /** Lines of a `sources.list`, or none for mmdebstrap's own default. */
  readonly sources: readonly string[];
  /** Settings of the host's apt that reach the archive (proxies, dates of snapshots), as `apt.conf` lines. */
  readonly aptOptions: readonly string[];
}

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** One archive the host's apt knows; what `apt-get indextargets` says. */
export interface IndexTarget {
  readonly label: string;
  readonly uri: string;
}

/**
 * The archive as the host's apt reaches it, or at `mirror` (a URL) if that is given.
 * Errors: those of `run` if this is no Debian.
 */
export async function findDebianArchive(mirror: string | undefined, signal: AbortSignal): Promise<DebianArchive> {
  const [targets, dump] = await Promise.all([
    run('apt-get', ['indextargets', '--format', '$(LABEL)|$(REPO_URI)', 'Created-By: Packages'], { signal }),
    run('apt-config', ['dump'], { signal }),
  ]);
  return { sources: sourcesFor(mirror, parseIndexTargets(targets.stdout)), aptOptions: archiveOptions(dump.stdout) };
}

export function parseIndexTargets(text: string): readonly IndexTarget[] {
  return text.split('\n').flatMap((line) => {
    const separator = line.indexOf('|');
    return separator < 0 ? [] : [{ label: line.slice(0, separator), uri: line.slice(separator + 1) }];
  });
}

/**
 * The `sources.list`: release and updates from the mirror, security updates from where the host takes them. Labels are
 * those of Debian's Release files; without them (lists never fetched) nothing is guessed and mmdebstrap's default holds.
 */
export function sourcesFor(mirror: string | undefined, targets: readonly IndexTarget[]): readonly string[] {
  const base = mirror ?? targets.find((target) => target.label === 'Debian')?.uri;
  if (base === undefined) return [];
  if (!/^(https?|file|copy|cdrom|mirror\+\w+):\/?\S*$/.test(base)) {
    throw new PodvmError('invalid', `Cannot use the Debian mirror: expected a URL, got ${JSON.stringify(base)}`, {
      fix: 'Give the mirror as http://HOST/debian.',
    });
  }
  const security = targets.find((target) => target.label === 'Debian-Security')?.uri;
  return [
    line('deb', base, suite),
    line('deb', base, `${suite}-updates`),
    ...(security === undefined ? [] : [line('deb', security, `${suite}-security`)]),
    line('deb-src', base, suite),
  ];
}

function line(type: 'deb' | 'deb-src', uri: string, release: string): string {
  return `${type} [signed-by=${keyring}] ${uri} ${release} main`;
}

/** Lines of `apt-config dump` that say how to reach an archive. */
export function archiveOptions(dump: string): readonly string[] {
  return dump
    .split('\n')
    .filter((line) => /^Acquire::(https?::(Proxy|Timeout|CAInfo)|Check-Valid-Until|Check-Date|Retries)\b/i.test(line));
}
