import { basename } from 'node:path';
import { run } from '#host/process/run.ts';
import type { Candidate } from './parts/debian-packages.ts';
import { readHostTools } from './host-tools.ts';
import type { NewestPackages } from './parts/newest-packages.ts';
import { type PackageRecord, readPackages, versionsOf } from './parts/package-record.ts';
import { describeOutdated, type Outdated, type UpdateFinding } from './update-report.ts';

/** The Debian packages of the current parts. */
export interface InstalledPackages {
  readonly sysroot: readonly PackageRecord[];
  readonly buildRoot: readonly PackageRecord[];
  readonly kernel: readonly PackageRecord[];
}

/** `parts`: directories, as listed in `current.json`. */
export async function readInstalled(parts: readonly string[]): Promise<InstalledPackages> {
  const of = async (name: string) => {
    const directory = parts.find((part) => basename(part).startsWith(`${name}-`));
    return directory === undefined ? [] : await readPackages(directory);
  };
  const [sysroot, buildRoot, kernel] = await Promise.all([of('sysroot'), of('build-root'), of('kernel')]);
  return { sysroot, buildRoot, kernel };
}

export const crunSourceOf = ({ buildRoot }: InstalledPackages): string | undefined =>
  buildRoot.find(({ name, architecture }) => name === 'crun' && architecture === 'source')?.version;

/** Whether set-up would take exactly the same versions again. */
export function isNewest(installed: InstalledPackages, newest: NewestPackages): boolean {
  const same = (records: readonly PackageRecord[], candidates: readonly Candidate[]) => {
    const versions = versionsOf(records);
    return (
      Object.keys(versions).length === candidates.length &&
      candidates.every(({ name, version }) => versions[name] === version)
    );
  };
  return (
    same(installed.sysroot, newest.sysroot) &&
    same(installed.buildRoot, newest.buildRoot) &&
    same(installed.kernel, newest.kernel) &&
    crunSourceOf(installed) === newest.crun
  );
}

const upgrade = 'Run `podvm setup --upgrade`: new pods get the new parts, running pods keep theirs.';

/** Compares the parts with the archives. */
export async function compareParts(
  installed: InstalledPackages,
  newest: NewestPackages,
  signal: AbortSignal,
): Promise<readonly UpdateFinding[]> {
  const among = async (
    subject: UpdateFinding['subject'],
    records: readonly PackageRecord[],
    candidates: readonly Candidate[],
  ): Promise<UpdateFinding> => {
    const main = records.find(({ name }) => name === 'qemu-system-x86' || name.startsWith('linux-image-'));
    const versions = versionsOf(records);
    const found = await outdatedOf(
      candidates.flatMap(({ name, version: to, isSecurity }) => {
        const from = versions[name];
        return from === undefined ? [] : [{ name, from, to, isSecurity }];
      }),
      signal,
    );
    if (found.length > 0) return { subject, verdict: 'older', detail: describeOutdated(found), fix: upgrade };
    const what = main === undefined ? `${records.length} packages` : `${main.name} ${main.version}`;
    return { subject, verdict: 'newest', detail: `${what}: the archives have nothing newer` };
  };
  return [
    await among('QEMU', installed.sysroot, newest.sysroot),
    await kernelFinding(installed.kernel[0], newest.kernel[0], signal),
    await crunFinding(crunSourceOf(installed), newest.crun, signal),
    // Absent on a machine that was set up from a bundle.
    ...(installed.buildRoot.length === 0 ? [] : [await among('build root', installed.buildRoot, newest.buildRoot)]),
  ];
}

/** Compares names as well as versions: each kernel's package has its own name. */
async function kernelFinding(
  installed: PackageRecord | undefined,
  newest: Candidate | undefined,
  signal: AbortSignal,
): Promise<UpdateFinding> {
  const subject = 'guest kernel';
  if (installed === undefined || newest === undefined)
    return { subject, verdict: 'unknown', detail: 'could not be checked: set-up has no record of it', fix: upgrade };
  const { name, version: from } = installed;
  const { version: to, isSecurity } = newest;
  const found = await outdatedOf([{ name, from, to, isSecurity }], signal);
  if (found.length > 0) return { subject, verdict: 'older', detail: describeOutdated(found), fix: upgrade };
  return { subject, verdict: 'newest', detail: `${name} ${from}: the archives have nothing newer` };
}

const upstreamOf = (version: string) => version.replace(/-[^-]*$/, '');

/** crun is built from upstream's archive, without Debian's patches, and an upgrade would not bring them. */
async function crunFinding(from: string | undefined, to: string, signal: AbortSignal): Promise<UpdateFinding> {
  const subject = 'crun';
  if (from === undefined)
    return { subject, verdict: 'unknown', detail: 'could not be checked: set-up has no record of it', fix: upgrade };
  const found = await outdatedOf([{ name: 'crun (source)', from, to, isSecurity: false }], signal);
  if (found.length === 0)
    return { subject, verdict: 'newest', detail: `source ${from}: the archives have nothing newer` };
  if (upstreamOf(from) !== upstreamOf(to))
    return { subject, verdict: 'older', detail: describeOutdated(found), fix: upgrade };
  return {
    subject,
    verdict: 'older',
    detail: `${describeOutdated(found)}, by Debian's patches, which podvm's build of upstream's ${upstreamOf(from)} does not have`,
    fix: "Read Debian's changelog of crun: what it patches reaches pods with upstream's next version.",
  };
}

/** Returns the changes whose `to` is later than `from`, in dpkg's order of versions. */
async function outdatedOf(changes: readonly Outdated[], signal: AbortSignal): Promise<readonly Outdated[]> {
  const found: Outdated[] = [];
  for (const change of changes) {
    if (change.from !== change.to && (await isLess(change.from, change.to, signal))) found.push(change);
  }
  return found;
}

/** Errors: those of `run`, also for an invalid version. */
export async function isLess(one: string, other: string, signal: AbortSignal): Promise<boolean> {
  const { code } = await run('dpkg', ['--compare-versions', one, 'lt', other], { signal, okCodes: [0, 1] });
  return code === 0;
}

/** Checks the host's own packages that podvm uses against the lists of the host's apt, which only the host fetches. */
export async function checkHostPackages(signal: AbortSignal): Promise<UpdateFinding> {
  const subject = 'host packages';
  const names = (await readHostTools()).map((tool) => tool.package);
  const { stdout } = await run('apt-cache', ['policy', ...names], { signal });
  const policies = parsePolicies(stdout);
  if (!policies.some(({ hasArchive }) => hasArchive)) {
    const fix = 'Run `apt-get update`.';
    return { subject, verdict: 'unknown', detail: "could not be checked: the host's apt has no lists of them", fix };
  }
  const found = await outdatedOf(
    policies.flatMap(({ name, installed, candidate }) =>
      installed === undefined || candidate === undefined
        ? []
        : [{ name, from: installed, to: candidate, isSecurity: false }],
    ),
    signal,
  );
  if (found.length === 0) return { subject, verdict: 'newest', detail: "as new as in the host's apt lists" };
  const fix = `Run \`apt-get update && apt-get install --only-upgrade ${found.map(({ name }) => name).join(' ')}\`.`;
  return { subject, verdict: 'older', detail: describeOutdated(found), fix };
}

interface Policy {
  readonly name: string;
  readonly installed: string | undefined;
  readonly candidate: string | undefined;
  /** Whether an archive has it, not only dpkg's own database. */
  readonly hasArchive: boolean;
}

/** Parses `apt-cache policy`: a name, and below it the versions. */
export function parsePolicies(text: string): readonly Policy[] {
  return text.split(/^(?=\S)/m).flatMap((block) => {
    const [, name] = /^(\S+):\n/.exec(block) ?? [];
    if (name === undefined) return [];
    const version = (word: string) => {
      const [, found] = new RegExp(`^ {2}${word}: (\\S+)$`, 'm').exec(block) ?? [];
      return found === '(none)' ? undefined : found;
    };
    const hasArchive = /^ {6,}-?\d+ (?!\/var\/lib\/dpkg\/status\b)\S/m.test(block);
    return [{ name, installed: version('Installed'), candidate: version('Candidate'), hasArchive }];
  });
}
