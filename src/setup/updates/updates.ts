import { messageOf } from '#base/errors.ts';
import { findDebianArchive, securityMissing, type DebianArchive } from '../parts/debian-archive.ts';
import { checkHostPackages, compareParts, readInstalled } from '../debian-updates.ts';
import { askArchives } from '../parts/newest-packages.ts';
import { checkNpm } from './npm-updates.ts';
import { readCurrent } from '../setup.ts';
import type { UpdateFinding, UpdateRequest } from '../update-report.ts';

/** The findings about parts. */
const ofParts = ['QEMU', 'guest kernel', 'crun', 'build root'] as const;

/**
 * Finds packages that are older than in the configured archives and the npm registry, and whether the archives include
 * Debian's security updates. A check that fails gives its reason. Changes nothing but apt's lists below the state
 * directory. Errors: only `cancelled`.
 */
export async function checkUpdates(request: UpdateRequest, signal: AbortSignal): Promise<readonly UpdateFinding[]> {
  const attempt = async (
    subjects: readonly UpdateFinding['subject'][],
    check: () => Promise<readonly UpdateFinding[]>,
  ): Promise<readonly UpdateFinding[]> => {
    try {
      return await check();
    } catch (error) {
      signal.throwIfAborted();
      const detail = `could not be checked: ${messageOf(error)}`.slice(0, 4000);
      return subjects.map((subject) => ({ subject, verdict: 'unknown', detail }));
    }
  };
  const debian = async (): Promise<readonly UpdateFinding[]> => {
    const archive = await findDebianArchive(request.mirror, signal);
    return [securityFinding(archive), ...(await checkParts(request, archive, signal))];
  };
  // Run side by side, since each waits for another server.
  const found = await Promise.all([
    attempt(['security archive', ...ofParts], debian),
    attempt(['host packages'], async () => [await checkHostPackages(signal)]),
    checkNpm(request.repo, request.npmEnv, signal),
  ]);
  return found.flat();
}

export function securityFinding({ hasSecurity }: DebianArchive): UpdateFinding {
  const subject = 'security archive';
  if (!hasSecurity) return { subject, verdict: 'missing', ...securityMissing };
  return { subject, verdict: 'newest', detail: 'configured' };
}

async function checkParts(
  { root }: UpdateRequest,
  archive: DebianArchive,
  signal: AbortSignal,
): Promise<readonly UpdateFinding[]> {
  const unknown = (why: string, fix: string) =>
    ofParts.map((subject) => ({ subject, verdict: 'unknown' as const, detail: `could not be checked: ${why}`, fix }));
  const current = await readCurrent(root);
  if (current === undefined) return unknown('set-up has made no parts', 'Run `podvm setup`.');
  const installed = await readInstalled(current.parts);
  if (installed.sysroot.length === 0)
    return unknown('set-up has no record of its packages', 'Run `podvm setup --upgrade`.');
  try {
    return await compareParts(installed, await askArchives(root, archive, signal), signal);
  } catch (error) {
    signal.throwIfAborted();
    return unknown(messageOf(error).slice(0, 2000), 'Check that `apt-get update` works on this host.');
  }
}
