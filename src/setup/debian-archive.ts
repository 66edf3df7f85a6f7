import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';

/** The Debian release that VMM, guest kernel and tools are taken from on every host (design: one behaviour to test). */
export const suite = 'trixie';

/** Where Debian's archive is, and how the host reaches it. */
export interface DebianArchive {
  /** Lines of a `sources.list`. */
  readonly sources: readonly string[];
  /** Whether Debian's security updates are among them. */
  readonly hasSecurity: boolean;
  /** Settings of the host's apt that reach the archive (proxies, dates of snapshots), as `apt.conf` lines. */
  readonly aptOptions: readonly string[];
}

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const official = { base: 'http://deb.debian.org/debian', security: 'http://deb.debian.org/debian-security' } as const;
/** Debian's own servers have its security updates beside them; what another mirror has is not known. */
const officialBase = /^https?:\/\/(?:deb|ftp|ftp\d?\.\w+|httpredir|cdn-\w+)\.debian\.org\/debian\/?$/;

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
  return { ...sourcesFor(mirror, parseIndexTargets(targets.stdout)), aptOptions: archiveOptions(dump.stdout) };
}

/** What to tell an operator whose archive has no security updates. */
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
 * The `sources.list`: release and updates from the mirror, security updates from where the host takes them, or, without
 * such a place, from Debian's own servers if the mirror is one of them. Labels are those of Debian's Release files; a host
 * that never fetched any has Debian's own servers. Errors: `invalid`.
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

/** Lines of `apt-config dump` that say how to reach an archive. */
export function archiveOptions(dump: string): readonly string[] {
  return dump
    .split('\n')
    .filter((line) => /^Acquire::(https?::(Proxy|Timeout|CAInfo)|Check-Valid-Until|Check-Date|Retries)\b/i.test(line));
}
