import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';

/** The Debian release of VMM, guest kernel and tools on every host, so that only one behaviour needs testing. */
export const suite = 'trixie';

/** The Debian archive, and how the host reaches it. */
export interface DebianArchive {
  /** Lines of a `sources.list`. */
  readonly sources: readonly string[];
  /** Whether they include Debian's security updates. */
  readonly hasSecurity: boolean;
  /** Settings of the host's apt for reaching the archive (proxies, dates of snapshots), as `apt.conf` lines. */
  readonly aptOptions: readonly string[];
}

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const official = { base: 'http://deb.debian.org/debian', security: 'http://deb.debian.org/debian-security' } as const;
/** Debian's own servers also have its security updates; for other mirrors this is unknown. */
const officialBase = /^https?:\/\/(?:deb|ftp|ftp\d?\.\w+|httpredir|cdn-\w+)\.debian\.org\/debian\/?$/;

/** An archive that the host's apt knows, from `apt-get indextargets`. */
export interface IndexTarget {
  readonly label: string;
  readonly uri: string;
}

/**
 * The archive as the host's apt reaches it, or at `mirror` (a URL) if given.
 * Errors: those of `run` when the host is not a Debian.
 */
export async function findDebianArchive(mirror: string | undefined, signal: AbortSignal): Promise<DebianArchive> {
  const [targets, dump] = await Promise.all([
    run('apt-get', ['indextargets', '--format', '$(LABEL)|$(REPO_URI)', 'Created-By: Packages'], { signal }),
    run('apt-config', ['dump'], { signal }),
  ]);
  return { ...sourcesFor(mirror, parseIndexTargets(targets.stdout)), aptOptions: archiveOptions(dump.stdout) };
}

/** The finding for an operator whose archive has no security updates. */
export const securityMissing = {
  detail: `no security archive is configured for Debian ${suite}: QEMU, guest kernel and crun get security updates late, with Debian's next point release`,
  fix: `Add one to the host's apt (\`deb http://security.debian.org/debian-security ${suite}-security main\`, or a mirror of it), run \`apt-get update\`, then \`podvm setup --upgrade\`.`,
} as const;

export function parseIndexTargets(text: string): readonly IndexTarget[] {
  return text.split('\n').flatMap((line) => {
    const separator = line.indexOf('|');
    return separator < 0 ? [] : [{ label: line.slice(0, separator), uri: line.slice(separator + 1) }];
  });
}

/**
 * Returns the `sources.list`: release and updates from the mirror; security updates from the host's source, otherwise
 * from Debian's own servers if the mirror is one of them. Labels are those of Debian's Release files; a host that has
 * never fetched any gets Debian's own servers. Errors: `invalid`.
 */
export function sourcesFor(
  mirror: string | undefined,
  targets: readonly IndexTarget[],
): Pick<DebianArchive, 'sources' | 'hasSecurity'> {
  const base = mirror ?? targets.find((target) => target.label === 'Debian')?.uri ?? official.base;
  if (!/^(https?|file|copy|cdrom|mirror\+\w+):\/?\S*$/.test(base)) {
    throw new PodvmError('invalid', `Cannot use the Debian mirror: expected a URL, got ${JSON.stringify(base)}`, {
      fix: 'Give the mirror as http://HOST/debian.',
    });
  }
  const ofHost = targets.find((target) => target.label === 'Debian-Security')?.uri;
  const security = ofHost ?? (officialBase.test(base) ? official.security : undefined);
  const places = [
    [base, suite],
    [base, `${suite}-updates`],
    ...(security === undefined ? [] : [[security, `${suite}-security`] as const]),
  ] as const;
  return {
    sources: [
      ...places.map(([uri, release]) => line('deb', uri, release)),
      ...places.map(([uri, release]) => line('deb-src', uri, release)),
    ],
    hasSecurity: security !== undefined,
  };
}

function line(type: 'deb' | 'deb-src', uri: string, release: string): string {
  return `${type} [signed-by=${keyring}] ${uri} ${release} main`;
}

/** The lines of `apt-config dump` for reaching an archive. */
export function archiveOptions(dump: string): readonly string[] {
  return dump
    .split('\n')
    .filter((line) => /^Acquire::(https?::(Proxy|Timeout|CAInfo)|Check-Valid-Until|Check-Date|Retries)\b/i.test(line));
}
