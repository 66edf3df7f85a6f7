import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';

/**
 * Templates on disk: `<directory>/<key>/` with `memory`, `state` and `template.json`. They belong to root and are
 * read-only, since every later machine runs them. The key covers everything that a template depends on, so that another
 * QEMU, kernel or agent never uses an old one. `template.json` is written last and records the files' metadata: any
 * later change of a file changes its ctime, and the template is made again instead of being run.
 */
const fileStampSchema = v.object({ inode: v.string(), size: v.string(), mtimeNs: v.string(), ctimeNs: v.string() });
const recordSchema = v.object({
  version: v.literal(1),
  memory: fileStampSchema,
  state: fileStampSchema,
  /** Checksum of `state`, which is small enough to be verified by content too. */
  stateSha256: v.string(),
  madeAt: v.string(),
});
type FileStamp = v.InferOutput<typeof fileStampSchema>;

export interface TemplateFiles {
  readonly memory: string;
  readonly state: string;
}

const recordFile = 'template.json';
const timeoutMs = 120_000;

export class TemplateStore {
  readonly #directory: string;

  /** `directory` must be on the file system of the machines' directories, and reachable by their users. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Returns the directory of the valid template with that key, or undefined. An invalid one is removed. */
  async find(key: string): Promise<string | undefined> {
    const directory = join(this.#directory, key);
    const text = await readFileIfThere(join(directory, recordFile));
    if (text === undefined) return undefined;
    if (await isAsRecorded(directory, text)) return directory;
    await this.remove(key);
    return undefined;
  }

  /** Returns the time at which the template with that key was made; undefined without one. */
  async madeAt(key: string): Promise<Date | undefined> {
    const found = await stat(join(this.#directory, key, recordFile)).catch(() => undefined);
    return found?.mtime;
  }

  /** Takes over the files of a frozen machine whose VMM is gone. Replaces an earlier template of that key. */
  async publish(key: string, files: TemplateFiles): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o711 });
    const directory = await mkdtemp(join(this.#directory, '.making-'));
    try {
      await chmod(directory, 0o755);
      await rename(files.state, join(directory, 'state'));
      await moveWithoutZeros(files.memory, join(directory, 'memory'));
      const [memory, state] = [await seal(join(directory, 'memory')), await seal(join(directory, 'state'))];
      const stateSha256 = await sha256Of(join(directory, 'state'));
      const record = { version: 1, memory, state, stateSha256, madeAt: new Date().toISOString() };
      await writeFileAtomic(join(directory, recordFile), `${JSON.stringify(record, null, 2)}\n`, 0o644);
      await this.remove(key);
      await rename(directory, join(this.#directory, key));
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  async remove(key: string): Promise<void> {
    await rm(join(this.#directory, key), { recursive: true, force: true });
  }

  /** Returns the keys of all templates, oldest first. */
  async keys(): Promise<readonly string[]> {
    const names = (await readdir(this.#directory)).filter((name) => !name.startsWith('.'));
    const found = await Promise.all(
      names.map(async (key) => {
        // The directory last changed when its record was written; `find` may be removing an invalid one now.
        const stats = await stat(join(this.#directory, key), { bigint: true }).catch(() => undefined);
        return stats === undefined ? [] : [{ key, madeNs: stats.mtimeNs }];
      }),
    );
    return found
      .flat()
      .sort((one, other) => Number(one.madeNs - other.madeNs))
      .map(({ key }) => key);
  }

  /**
   * Removes all templates but those to keep, and all unfinished ones; no `publish` may be under way. VMMs that run from
   * a removed template keep its files open and are not affected.
   */
  async collect(isKept: (key: string) => boolean): Promise<void> {
    for (const key of await readdir(this.#directory)) if (!isKept(key)) await this.remove(key);
  }
}

async function isAsRecorded(directory: string, text: string): Promise<boolean> {
  try {
    const record = v.parse(recordSchema, JSON.parse(text));
    const [memory, state] = await Promise.all([stampOf(join(directory, 'memory')), stampOf(join(directory, 'state'))]);
    return (
      isSame(memory, record.memory) &&
      isSame(state, record.state) &&
      (await sha256Of(join(directory, 'state'))) === record.stateSha256
    );
  } catch {
    return false; // truncated, or written by another version
  }
}

/**
 * Moves the memory without its pages of zeros, a third of the pages that a guest has touched until its machine is
 * frozen. It makes a copy, since holes in the file itself (fallocate) leave half of them.
 */
async function moveWithoutZeros(from: string, to: string): Promise<void> {
  await run('cp', ['--sparse=always', '--reflink=never', from, to], { timeoutMs });
  await rm(from);
}

/** Makes the file root's and read-only, and syncs it: the reader would be charged for dirty pages. */
async function seal(path: string): Promise<FileStamp> {
  await chown(path, 0, 0);
  await chmod(path, 0o444);
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  return await stampOf(path);
}

async function stampOf(path: string): Promise<FileStamp> {
  const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return { inode: String(ino), size: String(size), mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs) };
}

function isSame(one: FileStamp, other: FileStamp): boolean {
  return (
    one.inode === other.inode &&
    one.size === other.size &&
    one.mtimeNs === other.mtimeNs &&
    one.ctimeNs === other.ctimeNs
  );
}

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
