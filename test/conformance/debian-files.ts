import { createHash } from 'node:crypto';
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import { findDebianArchive, suite } from '#setup/parts/debian-archive.ts';
import { extractPackages } from '#setup/parts/debian-packages.ts';

/** Packages of the images that critest pulls. */
const suitePackages = ['busybox-static', 'nginx-light', 'perl-base', 'procps', 'util-linux'];
const libraries = 'usr/lib/x86_64-linux-gnu';
const loader = 'usr/lib64/ld-linux-x86-64.so.2';

/** Unpacked Debian packages, from which images take single files. */
export class DebianFiles {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  /** Unpacked once into `cache`; nothing of them is installed. */
  static async unpack(cache: string, signal: AbortSignal, packages = suitePackages): Promise<DebianFiles> {
    const key = createHash('sha256')
      .update(JSON.stringify([packages, suite]))
      .digest('hex')
      .slice(0, 16);
    const root = join(cache, `debian-${key}`);
    if (!(await isThere(root))) {
      await mkdir(cache, { recursive: true });
      const work = await mkdtemp(join(cache, '.unpacking-'));
      try {
        const archive = await findDebianArchive(undefined, signal);
        await extractPackages({ archive, packages, target: join(work, 'root'), signal });
        await rename(join(work, 'root'), root);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    }
    return new DebianFiles(root);
  }

  async read(path: string): Promise<Buffer> {
    return await readFile(join(this.root, path));
  }

  /** A program under another name, if one is given; with `libraries()` of it, it runs. */
  async program(path: string, options: { readonly as?: string; readonly mode?: number } = {}): Promise<TarSpec> {
    return { name: options.as ?? path, content: await this.read(path), mode: options.mode ?? 0o755 };
  }

  /** The shared libraries of some programs, and their loader. */
  async libraries(...programs: readonly string[]): Promise<readonly TarSpec[]> {
    const found = new Map<string, TarSpec>();
    const ld = join(this.root, loader);
    for (const program of programs) {
      const args = ['--library-path', join(this.root, libraries), '--list', join(this.root, program)];
      const { stdout } = await run(ld, args);
      for (const [, path = ''] of stdout.matchAll(/=> (\/\S+) \(/g)) {
        const name = path === ld ? 'lib64/ld-linux-x86-64.so.2' : join('lib/x86_64-linux-gnu', basename(path));
        found.set(name, { name, content: await readFile(path), mode: 0o755 });
      }
    }
    return [...found.values()];
  }

  /** A directory with its content, at the same path. */
  async tree(path: string): Promise<readonly TarSpec[]> {
    const entries: TarSpec[] = [{ name: path, type: 'directory' }];
    for (const name of (await readdir(join(this.root, path))).sort()) {
      const inner = join(path, name);
      const stats = await lstat(join(this.root, inner));
      if (stats.isDirectory()) entries.push(...(await this.tree(inner)));
      else if (stats.isSymbolicLink()) {
        entries.push({ name: inner, type: 'symlink', target: await readlink(join(this.root, inner)) });
      } else entries.push({ name: inner, content: await this.read(inner), mode: stats.mode & 0o7777 });
    }
    return entries;
  }

  /** Names by which busybox can be called. */
  async applets(busybox: string): Promise<readonly string[]> {
    const { stdout } = await run(join(this.root, busybox), ['--list']);
    return stdout.trim().split('\n');
  }
}

/** The directories that lead to the entries, each once and before its content. */
export function withParents(entries: readonly TarSpec[]): readonly TarSpec[] {
  const known = new Set(entries.filter(({ type }) => type === 'directory').map(({ name }) => name));
  const added: TarSpec[] = [];
  for (const { name } of entries) {
    for (let parent = dirname(name); parent !== '.' && !known.has(parent); parent = dirname(parent)) {
      known.add(parent);
      added.push({ name: parent, type: 'directory' });
    }
  }
  return [...added.sort((a, b) => (a.name < b.name ? -1 : 1)), ...entries];
}
