import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { entriesInUse } from './entries-in-use.ts';
import type { Versions } from './package-record.ts';
import type { Progress } from '../progress.ts';

/**
 * A *part* is one directory that set-up makes: `<root>/parts/<name>-<hash of its recipe>`. It is made under another name
 * and renamed when complete, so an existing part is complete; the next set-up removes what an interrupted one left.
 */
export interface Part {
  readonly directory: string;
  /** Versions of the packages that it was made from. */
  readonly versions: Versions;
}

export interface PartRecipe {
  /** `[a-z-]+`. */
  readonly name: string;
  /** Text of progress messages while it is made: "unpacking the compiler". */
  readonly task: string;
  /** Everything that determines the result, as plain JSON: the part is made again when it changes. */
  readonly inputs: unknown;
  /** Makes the content in an empty directory. */
  make(directory: string): Promise<Versions>;
  /** Returns how far the making in this directory is, if that is known. */
  howFar?(directory: string): Promise<string | undefined>;
}

const partFile = 'part.json';
export const makingPrefix = '.making-';
const partSchema = v.object({ name: v.string(), versions: v.record(v.string(), v.string()) });

export function hashOf(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16);
}

const directoryOf = (partsDirectory: string, { name, inputs }: PartRecipe) =>
  join(partsDirectory, `${name}-${hashOf(inputs)}`);

/** The part of this recipe; undefined if it is missing. */
export async function findPart(partsDirectory: string, recipe: PartRecipe): Promise<Part | undefined> {
  const directory = directoryOf(partsDirectory, recipe);
  const known = await readFileIfThere(join(directory, partFile));
  return known === undefined ? undefined : { directory, versions: v.parse(partSchema, JSON.parse(known)).versions };
}

/** The part of this recipe, made if it is missing. */
export async function ensurePart(partsDirectory: string, recipe: PartRecipe, progress: Progress): Promise<Part> {
  const known = await findPart(partsDirectory, recipe);
  if (known !== undefined) return known;
  const directory = directoryOf(partsDirectory, recipe);
  const making = join(partsDirectory, `${makingPrefix}${recipe.name}-${randomBytes(4).toString('hex')}`);
  const howFar = recipe.howFar === undefined ? undefined : () => recipe.howFar?.(making) ?? Promise.resolve(undefined);
  const work = async () => {
    await mkdir(making, { recursive: true });
    try {
      const versions = await recipe.make(making);
      await writeFileAtomic(
        join(making, partFile),
        `${JSON.stringify({ name: recipe.name, versions }, null, 2)}\n`,
        0o644,
      );
      // Syncs first: after a power cut, a part with its final name must not have empty files.
      await run('sync', ['-f', making], { timeoutMs: 120_000 });
      await rename(making, directory);
      return { directory, versions };
    } catch (error) {
      await rm(making, { recursive: true, force: true, maxRetries: 5 });
      throw error;
    }
  };
  return await progress.during(recipe.task, work, howFar);
}

/** Removes parts of an interrupted set-up. Only for the holder of the set-up lock. */
export async function sweepUnfinished(partsDirectory: string): Promise<void> {
  for (const entry of await readdir(partsDirectory)) {
    if (entry.startsWith(makingPrefix))
      await rm(join(partsDirectory, entry), { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Pattern of a part's name: if the directory is a link, other entries there are left alone. */
const partName = /^[a-z-]+-[0-9a-f]{16}$/;

/** Parts that are not kept, in use or not. */
export async function superseded(partsDirectory: string, keep: ReadonlySet<string>): Promise<readonly string[]> {
  const parts = (await readdir(partsDirectory)).filter((entry) => partName.test(entry));
  return parts.filter((entry) => !keep.has(join(partsDirectory, entry)));
}

/**
 * Removes parts that are not kept and that no process has mounted or holds (`holdAssets`). Returns their names. Only for
 * the holder of the set-up lock.
 */
export async function collectParts(partsDirectory: string, keep: ReadonlySet<string>): Promise<readonly string[]> {
  const candidates = await superseded(partsDirectory, keep);
  if (candidates.length === 0) return [];
  const used = await entriesInUse(partsDirectory, candidates);
  const unused = candidates.filter((entry) => !used.has(entry));
  for (const entry of unused) await rm(join(partsDirectory, entry), { recursive: true, force: true });
  return unused;
}
