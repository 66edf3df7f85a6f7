import { mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { assetsSchema, type Assets } from '#host/assets.ts';
import { isThere, readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { PodvmError } from '#base/errors.ts';
import { programBuilderOf } from './parts/built-programs.ts';
import { hashProgramSources } from './parts/program-sources.ts';
import { type DebianArchive, findDebianArchive, securityMissing } from './parts/debian-archive.ts';
import type { Versions } from './parts/package-record.ts';
import { missingHostTools, readHostTools } from './host-tools.ts';
import { collectParts, ensurePart, hashOf, superseded, sweepUnfinished, type Part } from './parts/parts.ts';
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
import { takeSetupLock } from './setup-lock.ts';

export interface SetupOptions {
  /** State root, e.g. `/var/lib/podvm`. */
  readonly root: string;
  /** Directory of the program: a checkout or a release. */
  readonly repo: string;
  /** URL of a Debian mirror; default: the one of the host's apt. */
  readonly mirror?: string;
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
  versions: v.record(v.string(), v.string()),
  parts: v.array(v.string()),
});
export type Current = v.InferOutput<typeof currentSchema>;

/**
 * Returns the assets; makes parts that are missing or whose recipe or sources have changed. A second call takes a few
 * reads. Concurrent calls, also of several processes, wait for each other.
 * Errors: `failedPrecondition` (host tools missing), `unavailable` (no packages available), those of compiling.
 */
export async function ensureSetup(options: SetupOptions): Promise<Assets> {
  const ready = await readReady(options);
  if (ready !== undefined) return ready;
  await using _lock = await takeSetupLock(options.root, options.progress, options.signal);
  const current = await readReady(options); // another process may have made them meanwhile
  if (current !== undefined) return current;
  return await make(options, (await readCurrent(options.root))?.generation ?? 'first');
}

/**
 * Makes the parts from the newest Debian packages (takes about as long as the first time) and returns what changed; does
 * nothing when they are the newest already. Old parts stay while a process uses them.
 */
export async function upgradeSetup(
  options: SetupOptions,
): Promise<{ readonly assets: Assets; readonly changes: readonly PackageChange[] }> {
  await using _lock = await takeSetupLock(options.root, options.progress, options.signal);
  const current = await readCurrent(options.root);
  const ready = current === undefined ? undefined : await readReady(options);
  if (current !== undefined && ready !== undefined && (await isUpToDate(options, current))) {
    await collectBeside(options.root, current);
    return { assets: ready, changes: [] };
  }
  const before = current?.versions ?? {};
  const assets = await make(options, new Date().toISOString());
  const after = (await readCurrent(options.root))?.versions ?? {};
  return { assets, changes: changesBetween(before, after) };
}

/** Whether the archives have exactly the packages of the parts. Errors: those of the query to the archives. */
async function isUpToDate(
  { root, mirror, progress, signal, warn }: SetupOptions,
  { parts, sysroot }: Current,
): Promise<boolean> {
  await refuseMissingTools();
  const hasQemu = await stat(join(sysroot, 'usr/bin/qemu-system-x86_64')).catch(() => undefined);
  if (hasQemu === undefined) return false;
  const [{ askArchives }, { isNewest, readInstalled }] = await Promise.all([
    import('./parts/newest-packages.ts'), // not needed by a start
    import('./debian-updates.ts'),
  ]);
  const archive = await findDebianArchive(mirror, signal);
  const newest = await progress.during('asking the archives for newer versions', () =>
    askArchives(root, archive, signal),
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
export function areOurs({ key, generation, agent }: Current): boolean {
  return key === keyOf(generation, agent);
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
  if (current === undefined || current.key !== keyOf(current.generation, agent)) return undefined;
  const there = await Promise.all(
    [join(current.sysroot, 'usr'), current.kernel, current.initramfs, current.modules, current.fileServer].map((path) =>
      isThere(path),
    ),
  );
  return there.includes(false) ? undefined : v.parse(assetsSchema, current);
}

async function make(options: SetupOptions, generation: string): Promise<Assets> {
  const { root, repo, progress, signal } = options;
  await refuseMissingTools();
  const partsDirectory = join(root, 'parts');
  await mkdir(partsDirectory, { recursive: true });
  await mkdir(dirname(currentFile(root)), { recursive: true });
  await sweepUnfinished(partsDirectory);

  const archive = await findDebianArchive(options.mirror, signal);
  warnOfSecurity(archive, options.warn);
  const ingredients = { archive, generation, signal };
  const buildRoot = await ensurePart(partsDirectory, buildRootRecipe(ingredients), progress);
  // Building crun keeps the processor busy while the other parts wait for the network.
  const [sysroot, kernel, crun] = await allOrError([
    ensurePart(partsDirectory, sysrootRecipe(ingredients), progress),
    ensurePart(partsDirectory, kernelRecipe(ingredients, buildRoot), progress),
    ensurePart(partsDirectory, crunRecipe(buildRoot, signal), progress),
  ]);
  const modules = await ensurePart(partsDirectory, modulesDiskRecipe(kernel, sysroot, signal), progress);
  const programsKey = await hashProgramSources(repo);
  const buildProgram = await programBuilderOf(repo);
  const initramfs = await ensurePart(
    partsDirectory,
    initramfsRecipe({ repo, buildRoot, kernel, crun, buildProgram, programsKey, signal }),
    progress,
  );
  const fileServer = await ensurePart(
    partsDirectory,
    fileServerRecipe({ repo, buildRoot, buildProgram, programsKey, signal }),
    progress,
  );
  const made = { sysroot, kernel, initramfs, modules, 'file-server': fileServer };
  const assets: Assets = {
    key: keyOf(generation, programsKey),
    ...pathsIn((part) => made[part].directory),
    kernelVersion: kernel.versions['kernel'] ?? 'unknown',
    qemuVersion: sysroot.versions['qemu-system-x86'] ?? 'unknown',
    crunVersion: crun.versions['crun'] ?? 'unknown',
    agent: programsKey,
  };
  await publish(root, assets, generation, [sysroot, buildRoot, kernel, crun, modules, initramfs, fileServer]);
  return assets;
}

/** Parts that pods need; the others are only used to make these. */
export type NeededPart = 'sysroot' | 'kernel' | 'modules' | 'initramfs' | 'file-server';

/** Paths of the assets in the directories of their parts. */
export const pathsIn = (directoryOf: (part: NeededPart) => string) => ({
  sysroot: join(directoryOf('sysroot'), 'root'),
  kernel: join(directoryOf('kernel'), 'vmlinux'),
  initramfs: join(directoryOf('initramfs'), 'initramfs.img'),
  modules: join(directoryOf('modules'), 'modules.erofs'),
  fileServer: join(directoryOf('file-server'), 'files'),
});

/** Makes the assets the current ones, and removes unused parts afterwards: see `holdAssets`. */
async function publish(root: string, assets: Assets, generation: string, parts: readonly Part[]): Promise<void> {
  const directories = parts.map((part) => part.directory);
  const versions = Object.assign({}, ...parts.map((part) => part.versions));
  await publishCurrent(root, { ...assets, generation, versions, parts: directories });
}

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

export function keyOf(generation: string, programsKey: string): string {
  return hashOf({ recipesVersion, generation, programsKey });
}
