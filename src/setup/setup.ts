import { mkdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import * as v from 'valibot';
import { assetsSchema, type Assets } from '#host/assets.ts';
import { isThere, readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { fixOf } from '#host/advice.ts';
import { programBuilderOf } from './parts/built-programs.ts';
import { hashProgramSources } from './parts/program-sources.ts';
import { type DebianArchive, findDebianArchive, securityMissing } from './parts/debian-archive.ts';
import type { NewestPackages } from './parts/newest-packages.ts';
import type { Versions } from './parts/package-record.ts';
import { type GuestKernel, guestKernels, partsOfKernel, pathsWith } from './guest-kernel.ts';
import { missingHostTools, readHostTools } from './host-tools.ts';
import {
  collectParts,
  ensurePart,
  findPart,
  hashOf,
  type Part,
  type PartRecipe,
  superseded,
  sweepUnfinished,
} from './parts/parts.ts';
import type { Progress } from './progress.ts';
import {
  buildRootRecipe,
  crunRecipe,
  fileServerRecipe,
  initramfsRecipe,
  kernelRecipe,
  modulesDiskRecipe,
  recipesVersion,
  sysrootRecipe,
} from './parts/recipes.ts';
import { smallKernelRecipe } from './parts/small-kernel.ts';
import { vmmPluginRecipe } from './parts/vmm-plugin.ts';
import { takeSetupLock } from './setup-lock.ts';

export interface SetupOptions {
  /** State root, e.g. `/var/lib/podvm`. */
  readonly root: string;
  /** Directory of the program: a checkout or a release. */
  readonly repo: string;
  /** URL of a Debian mirror; default: the one of the host's apt. */
  readonly mirror?: string;
  /** Kernel of new machines, which is built if it is the small one and missing; default: the present one, or Debian's. */
  readonly kernel?: GuestKernel;
  /** Called with warnings for the operator. */
  readonly warn: (text: string) => void;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** A changed package with both versions; undefined where it was or is not a part. */
export interface PackageChange {
  readonly package: string;
  readonly from: string | undefined;
  readonly to: string | undefined;
}

/** `current.json`: the assets, and data for later set-ups. */
export const currentSchema = v.object({
  ...assetsSchema.entries,
  /** Changes only with `upgradeSetup`, which takes Debian packages again. */
  generation: v.string(),
  guestKernel: v.optional(v.picklist(guestKernels), 'debian'),
  /** The kernel that was chosen. Later set-ups and bundles keep the choice; until it is built, machines have Debian's. */
  chosenKernel: v.exactOptional(v.picklist(guestKernels)),
  versions: v.record(v.string(), v.string()),
  parts: v.array(v.string()),
});
export type Current = v.InferOutput<typeof currentSchema>;

/** The kernel that these options choose, or that was chosen before; a small one that a bundle brought is kept too. */
const choiceOf = ({ kernel }: SetupOptions, before: Current | undefined): GuestKernel | undefined =>
  kernel ?? before?.chosenKernel ?? (before?.guestKernel === 'small' ? 'small' : undefined);

/** Whether these parts have the kernel that was chosen; if one is given, whether it was that one. */
export const hasKernel = ({ guestKernel, chosenKernel }: Current, kernel = chosenKernel): boolean =>
  kernel === undefined || (guestKernel === kernel && chosenKernel === kernel);

/**
 * Returns the assets; makes parts that are missing or whose recipe or sources have changed. A second call takes a few
 * reads. Concurrent calls, also of several processes, wait for each other.
 * Errors: `failedPrecondition` (host tools missing), `unavailable` (no packages available), those of compiling.
 */
export async function ensureSetup(options: SetupOptions): Promise<Assets> {
  const ready = await readChosen(options);
  if (ready !== undefined) return ready;
  await using _lock = await takeSetupLock(options.root, options.progress, options.signal);
  const current = await readChosen(options); // another process may have made them meanwhile
  if (current !== undefined) return current;
  const before = await readCurrent(options.root);
  const chosen = await chooseKernel(options, before);
  if (chosen !== undefined) return chosen;
  const generation = before?.generation ?? 'first';
  const made = await make(options, before, { generation, builds: options.kernel !== undefined, maker: fromDebian });
  if (!hasKernel(made)) options.warn(smallKernelMissing);
  return v.parse(assetsSchema, made);
}

/** Warning for an operator who has chosen it. */
export const smallKernelMissing =
  "WARNING: new pods get Debian's kernel: the small one is not built for these parts\n  fix: Run `podvm setup --kernel small`.";

/** The assets if they are ready and have the kernel that the options want, if they want one. */
async function readChosen(options: SetupOptions): Promise<Assets | undefined> {
  const { root, kernel } = options;
  if (kernel !== undefined) {
    const current = await readCurrent(root);
    if (current === undefined || !hasKernel(current, kernel)) return undefined;
  }
  return await readReady(options);
}

/** Makes the kernel of the options that of new machines, if its parts are there; needs no network. Holds the lock. */
async function chooseKernel(options: SetupOptions, before: Current | undefined): Promise<Assets | undefined> {
  const { root, kernel } = options;
  if (kernel === undefined || before === undefined || (await readReady(options)) === undefined) return undefined;
  const made = currentWith(kernel, before);
  if (made === undefined || !(await areThere(made))) return undefined;
  await publishCurrent(root, { ...made, chosenKernel: kernel });
  return v.parse(assetsSchema, made);
}

/**
 * Makes the parts from the newest Debian packages (takes about as long as the first time, and the build of the small kernel if
 * that was chosen and there is a newer one) and returns what changed; does nothing when they are the newest already. New pods get
 * the new parts when all are made: if one fails, nothing has changed. Old parts stay while a process uses them.
 */
export async function upgradeSetup(
  options: SetupOptions,
  maker: Maker = fromDebian,
): Promise<{ readonly assets: Assets; readonly changes: readonly PackageChange[] }> {
  await using _lock = await takeSetupLock(options.root, options.progress, options.signal);
  const before = await readCurrent(options.root);
  const isReady = before !== undefined && (await readReady(options)) !== undefined;
  const isNewest = isReady && (await isUpToDate(options, before, maker));
  if (isNewest && hasKernel(before, options.kernel)) {
    await collectBeside(options.root, before);
    return { assets: v.parse(assetsSchema, before), changes: [] };
  }
  const generation = isNewest ? before.generation : new Date().toISOString();
  const making = make(options, before, { generation, builds: true, maker });
  const made = await making.catch(async (error: unknown) => {
    if (before !== undefined && !isNewest) await collectFailed(options.root, before).catch(() => undefined);
    throw error;
  });
  return { assets: v.parse(assetsSchema, made), changes: changesBetween(before?.versions ?? {}, made.versions) };
}

/** Removes what a failed upgrade has made for its generation. A kernel that it has built stays for the next one. */
async function collectFailed(root: string, { parts }: Current): Promise<void> {
  const directory = join(root, 'parts');
  const made = await superseded(directory, new Set(parts));
  const built = made.filter((name) => name.startsWith(`${partsOfKernel.small.kernel}-`));
  await collectParts(directory, new Set([...parts, ...built.map((name) => join(directory, name))]));
}

/** Whether the archives have exactly the packages of the parts. Errors: those of the query to the archives. */
async function isUpToDate(
  { root, mirror, progress, signal, warn }: SetupOptions,
  { parts, sysroot }: Current,
  maker: Maker,
): Promise<boolean> {
  await refuseMissingTools();
  const hasQemu = await stat(join(sysroot, 'usr/bin/qemu-system-x86_64')).catch(() => undefined);
  if (hasQemu === undefined) return false;
  const { isNewest, readInstalled } = await import('./debian-updates.ts'); // not needed by a start
  const archive = await maker.findArchive(mirror, signal);
  const newest = await progress.during('asking the archives for newer versions', () =>
    maker.newest(root, archive, signal),
  );
  const isSame = isNewest(await readInstalled(parts), newest);
  if (isSame) warnOfSecurity(archive, warn); // otherwise making them warns
  return isSame;
}

function warnOfSecurity({ hasSecurity }: DebianArchive, warn: SetupOptions['warn']): void {
  if (!hasSecurity) warn(`WARNING: ${securityMissing.detail}\n  fix: ${securityMissing.fix}`);
}

/** Removes parts that are neither current nor in use; waits for a set-up in progress. */
export async function collectUnused({
  root,
  progress,
  signal,
}: Omit<SetupOptions, 'warn'>): Promise<readonly string[]> {
  const before = await readCurrent(root);
  if (before === undefined || (await superseded(join(root, 'parts'), new Set(before.parts))).length === 0) return [];
  await using _lock = await takeSetupLock(root, progress, signal);
  const current = await readCurrent(root);
  return current === undefined ? [] : await collectBeside(root, current);
}

const collectBeside = (root: string, { parts }: Current) => collectParts(join(root, 'parts'), new Set(parts));

/** Whether the parts are those that this version of the program would make. */
export function areOurs({ key, generation, agent, guestKernel }: Current): boolean {
  return key === keyOf(generation, agent, guestKernel);
}

export function changesBetween(before: Versions, after: Versions): readonly PackageChange[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  return names
    .filter((name) => before[name] !== after[name])
    .map((name) => ({ package: name, from: before[name], to: after[name] }));
}

/** The content of `current.json`; undefined when there is none or it is of another version of this program. */
export async function readCurrent(root: string): Promise<Current | undefined> {
  const text = await readFileIfThere(currentFile(root));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(currentSchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined; // not JSON: made again
  }
}

/** The assets if nothing changed: the key matches and the files exist. */
export async function readReady({ root, repo }: Pick<SetupOptions, 'root' | 'repo'>): Promise<Assets | undefined> {
  const [current, agent] = await Promise.all([readCurrent(root), hashProgramSources(repo)]);
  if (current === undefined || !areOurs({ ...current, agent })) return undefined;
  return (await areThere(current)) ? v.parse(assetsSchema, current) : undefined;
}

/** Whether all files of the assets exist. */
export async function areThere({ sysroot, kernel, initramfs, modules, fileServer, plugin }: Assets): Promise<boolean> {
  const files = [kernel, initramfs, modules, fileServer, ...(plugin === undefined ? [] : [plugin])];
  const there = await Promise.all([join(sysroot, 'usr'), ...files].map((path) => isThere(path)));
  return !there.includes(false);
}

/** Where parts come from; tests replace it. */
export interface Maker {
  findArchive: typeof findDebianArchive;
  /** The packages that the archives have now. */
  newest(root: string, archive: DebianArchive, signal: AbortSignal): Promise<NewestPackages>;
  /** Makes the content of a part in an empty directory. */
  make(recipe: PartRecipe, directory: string): Promise<Versions>;
}

const fromDebian: Maker = {
  findArchive: findDebianArchive,
  async newest(...query) {
    const { askArchives } = await import('./parts/newest-packages.ts'); // not needed by a start
    return await askArchives(...query);
  },
  make: (recipe, directory) => recipe.make(directory),
};

interface Making {
  readonly generation: string;
  /** Whether a small kernel that was chosen is built if it is missing; else machines have Debian's until it is. */
  readonly builds: boolean;
  readonly maker: Maker;
}

/** Makes the parts that are missing, and then all of them current. `before`: the present ones. */
async function make(options: SetupOptions, before: Current | undefined, making: Making): Promise<Current> {
  const { root, repo, progress, signal } = options;
  const { generation, builds, maker } = making;
  const chosen = choiceOf(options, before);
  await refuseMissingTools();
  const partsDirectory = join(root, 'parts');
  await mkdir(partsDirectory, { recursive: true });
  await mkdir(dirname(currentFile(root)), { recursive: true });
  await sweepUnfinished(partsDirectory);

  const archive = await maker.findArchive(options.mirror, signal);
  warnOfSecurity(archive, options.warn);
  const ingredients = { archive, generation, signal };
  const ensure = (recipe: PartRecipe) =>
    ensurePart(partsDirectory, { ...recipe, make: (directory) => maker.make(recipe, directory) }, progress);
  const buildRoot = await ensure(buildRootRecipe(ingredients));
  // Building crun keeps the processor busy while the other parts wait for the network.
  const [sysroot, kernel, crun] = await allOrError([
    ensure(sysrootRecipe(ingredients)),
    ensure(kernelRecipe(ingredients, buildRoot)),
    ensure(crunRecipe(buildRoot, signal)),
  ]);
  const small = await smallKernelRecipe(ingredients, kernel);
  const smallKernel =
    chosen === 'small' && builds
      ? await ensure(small).catch(async (cause: unknown) => {
          const kept = (await readReady(options))?.kernelVersion;
          if (kindOf(cause) === 'cancelled') options.warn(`the small kernel is not built${keeping(kept)}`);
          throw notBuilt(cause, kept);
        })
      : await findPart(partsDirectory, small);
  const programsKey = await hashProgramSources(repo);
  const buildProgram = await programBuilderOf(repo);
  const withKernel = async (of: GuestKernel, its: Part): Promise<readonly Part[]> => {
    const { modules, initramfs } = partsOfKernel[of];
    const parts = { name: initramfs, repo, buildRoot, kernel: its, crun, buildProgram, programsKey, signal };
    return [its, await ensure(modulesDiskRecipe(modules, its, sysroot, signal)), await ensure(initramfsRecipe(parts))];
  };
  const ofKernels = [
    ...(await withKernel('debian', kernel)),
    ...(smallKernel === undefined ? [] : await withKernel('small', smallKernel)),
  ];
  const fileServer = await ensure(fileServerRecipe({ repo, buildRoot, buildProgram, programsKey, signal }));
  const plugin = await ensure(await vmmPluginRecipe(buildRoot, signal));
  const parts = [sysroot, buildRoot, crun, ...ofKernels, fileServer, plugin];
  const made = currentWith(smallKernel === undefined ? 'debian' : (chosen ?? 'debian'), {
    generation,
    agent: programsKey,
    versions: Object.assign({}, ...parts.map((part) => part.versions)),
    parts: parts.map((part) => part.directory),
  });
  if (made === undefined) throw new PodvmError('internal', 'Cannot set up: a part is missing');
  const current = chosen === undefined ? made : { ...made, chosenKernel: chosen };
  await publishCurrent(root, current);
  return current;
}

const keeping = (version: string | undefined) => (version === undefined ? '' : `; new pods still get ${version}`);

/** The error of a build of the small kernel, which has changed nothing. `kept`: the kernel of new pods. */
function notBuilt(cause: unknown, kept: string | undefined): PodvmError {
  const why = messageOf(cause).replace(/^Cannot build the small kernel: /, '');
  const fix =
    fixOf(cause) ?? "Run the same command again, or with `--kernel debian` for Debian's kernel, which needs no build.";
  const tail = cause instanceof PodvmError ? cause.tail : [];
  return new PodvmError(kindOf(cause), `Cannot build the small kernel: ${why}${keeping(kept)}`, { cause, fix, tail });
}

/** The current parts with another kernel of theirs; undefined if they lack a part of it. */
export function currentWith(
  guestKernel: GuestKernel,
  made: Pick<Current, 'generation' | 'agent' | 'versions' | 'parts'>,
): Current | undefined {
  const { generation, agent, versions, parts } = made;
  const named = new Map(parts.map((part) => [basename(part).replace(/-[0-9a-f]{16}$/, ''), part]));
  const paths = pathsWith(guestKernel, (part) => named.get(part));
  if (paths === undefined) return undefined;
  const version = (of: string) => versions[of] ?? 'unknown';
  return {
    key: keyOf(generation, agent, guestKernel),
    ...paths,
    kernelVersion: version(partsOfKernel[guestKernel].kernel),
    qemuVersion: version('qemu-system-x86'),
    crunVersion: version('crun'),
    ...{ agent, generation, guestKernel, versions, parts: [...parts] },
  };
}

/** Makes the assets the current ones, and removes unused parts afterwards: see `holdAssets`. */
export async function publishCurrent(root: string, current: Current): Promise<void> {
  await mkdir(dirname(currentFile(root)), { recursive: true });
  await writeFileAtomic(currentFile(root), `${JSON.stringify(current, null, 2)}\n`, 0o644);
  await collectBeside(root, current);
}

/** `without`: does not require tools that only make parts. Errors: `failedPrecondition`. */
export async function refuseMissingTools(without?: 'makers'): Promise<void> {
  const tools = (await readHostTools()).filter(
    ({ makesParts, forUsers }) => !forUsers && (!makesParts || without !== 'makers'),
  );
  const missing = (await missingHostTools(tools)).map((tool) => tool.package);
  if (missing.length === 0) return;
  throw new PodvmError('failedPrecondition', `Cannot set up: the host lacks ${missing.join(', ')}`, {
    fix: `Run \`apt-get install --no-install-recommends ${missing.join(' ')}\`.`,
  });
}

/** Waits for all, so that none is still running when another fails; then throws the first error. */
async function allOrError(parts: readonly [Promise<Part>, Promise<Part>, Promise<Part>]): Promise<[Part, Part, Part]> {
  await Promise.allSettled(parts);
  return await Promise.all(parts);
}

function currentFile(root: string): string {
  return join(root, 'assets', 'current.json');
}

export function keyOf(generation: string, programsKey: string, guestKernel: GuestKernel): string {
  return hashOf({ recipesVersion, generation, programsKey, guestKernel });
}
