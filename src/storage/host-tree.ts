import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { lstat, open, opendir, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { kindOf, PodvmError } from '#base/errors.ts';

/** Permission bits, including set-group-id and sticky, and the owner. */
export interface Owner {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** A file; `path` is relative, `/`-separated, without `..`. */
export interface HostFile extends Owner {
  readonly path: string;
  readonly bytes: Uint8Array;
}

/** The content of a small volume at one moment. */
export interface HostTree {
  /** Owner of its root; for a single file, the file's. */
  readonly owner: Owner;
  readonly files: readonly HostFile[];
  /** Trees with the same digest are equal. */
  readonly digest: string;
}

export interface TreeLimits {
  /** Total bytes of all files. */
  readonly maxBytes: number;
  readonly maxFiles: number;
  /** Nesting depth of directories. */
  readonly maxDepth: number;
}

/** Maximum number of reads. A kubelet version has few files, and each try reads a whole one. */
const maxTries = 10;
const permissions = 0o7777;

/**
 * Reads the files at `path`: all files of the current version for a directory of kubelet's atomic writer, all files of
 * another directory, or a single file by its name. `what` is the subject of error messages. Errors: `exhausted` (a
 * limit is exceeded), `invalid` (an entry that is neither file nor directory), `notFound`, `busy` (it changes faster
 * than it can be read).
 */
export async function readHostTree(
  what: string,
  path: string,
  limits: TreeLimits,
  signal: AbortSignal,
): Promise<HostTree> {
  for (let tries = 1; ; tries += 1) {
    signal.throwIfAborted();
    const before = await currentVersion(path);
    try {
      const files = new TreeReader(what, limits, signal);
      const owner = await files.readAll(path, before);
      if ((await currentVersion(path)) === before) return { owner, files: files.found, digest: digestOf(owner, files) };
    } catch (error) {
      const isGone = codeOf(error) === 'ENOENT' && (await currentVersion(path)) !== before;
      if (!isGone) throw explain(what, path, error);
    }
    if (tries === maxTries) {
      throw new PodvmError('busy', `Cannot read ${what}: it changed during each of ${maxTries} reads`, {
        fix: 'Start the pod again when nothing writes to the directory.',
      });
    }
  }
}

/** Returns the directory that `..data` points to, or undefined without such a link. */
async function currentVersion(path: string): Promise<string | undefined> {
  try {
    return basename(await readlink(join(path, '..data')));
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EINVAL'].includes(codeOf(error))) return undefined;
    throw error;
  }
}

class TreeReader {
  readonly found: HostFile[] = [];
  readonly #what: string;
  readonly #limits: TreeLimits;
  readonly #signal: AbortSignal;
  #bytes = 0;

  constructor(what: string, limits: TreeLimits, signal: AbortSignal) {
    this.#what = what;
    this.#limits = limits;
    this.#signal = signal;
  }

  async readAll(path: string, version: string | undefined): Promise<Owner> {
    const root = await lstat(path);
    if (root.isDirectory()) await this.#directory(version === undefined ? path : join(path, version), '', 1);
    else await this.#file(path, basename(path), root);
    return ownerOf(root);
  }

  async #directory(directory: string, prefix: string, depth: number): Promise<void> {
    if (depth > this.#limits.maxDepth) throw this.#refuse('nested directories', depth, this.#limits.maxDepth);
    for await (const { name } of await opendir(directory)) {
      this.#signal.throwIfAborted();
      if (prefix === '' && name.startsWith('..')) continue; // kubelet's own entries; keys never begin so
      const path = join(directory, name);
      const status = await lstat(path);
      if (status.isDirectory()) await this.#directory(path, `${prefix}${name}/`, depth + 1);
      else await this.#file(path, `${prefix}${name}`, status);
    }
  }

  async #file(path: string, name: string, status: Stats): Promise<void> {
    if (!status.isFile()) {
      throw new PodvmError(
        'invalid',
        `Cannot read ${this.#what}: ${JSON.stringify(name)} is neither a file nor a directory`,
        { fix: 'Remove it from the volume, or use a hostPath volume, which is shared and not copied.' },
      );
    }
    if (this.found.length >= this.#limits.maxFiles) throw this.#refuse('files', '', this.#limits.maxFiles);
    const left = this.#limits.maxBytes - this.#bytes;
    if (status.size > left) throw this.#refuse('bytes', this.#bytes + status.size, this.#limits.maxBytes);
    // O_NONBLOCK: it may have been replaced by a FIFO.
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const now = await file.stat();
      const bytes = new Uint8Array(Math.min(now.size, left + 1));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      this.#bytes += bytesRead;
      if (this.#bytes > this.#limits.maxBytes) throw this.#refuse('bytes', this.#bytes, this.#limits.maxBytes);
      this.found.push({ path: name, bytes: bytes.subarray(0, bytesRead), ...ownerOf(now) });
    } finally {
      await file.close();
    }
  }

  #refuse(unit: string, got: number | '', limit: number): PodvmError {
    return new PodvmError(
      'exhausted',
      `Cannot read ${this.#what}: a volume copied into the machine must have at most ${limit} ${unit}` +
        (got === '' ? '' : `, got ${got}`),
      { fix: 'Put large content into an image, an emptyDir or a hostPath volume.' },
    );
  }
}

const ownerOf = ({ mode, uid, gid }: Stats): Owner => ({ mode: mode & permissions, uid, gid });

function digestOf(owner: Owner, { found }: TreeReader): string {
  const hash = createHash('sha256').update(JSON.stringify(owner));
  const inOrder = found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  for (const { bytes, ...head } of inOrder) hash.update(JSON.stringify([head, bytes.length])).update(bytes);
  return hash.digest('hex');
}

const codeOf = (error: unknown) => String((error as NodeJS.ErrnoException).code);

function explain(what: string, path: string, cause: unknown): unknown {
  if (cause instanceof PodvmError || kindOf(cause) === 'cancelled') return cause;
  const kind = codeOf(cause) === 'ENOENT' ? 'notFound' : 'internal';
  return new PodvmError(kind, `Cannot read ${what} at ${path}: ${codeOf(cause)}`, { cause });
}
