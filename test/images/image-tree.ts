import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from 'node:fs';
import { appendFile, mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import * as v from 'valibot';
import { assetsSchema } from '#host/assets.ts';
import { run } from '#host/process/run.ts';
import { flatten } from '#image/flatten.ts';
import type { HeldImage } from '#image/images.ts';
import type { Layer } from '#image/source/layout.ts';
import { type ImageLimits, imageLimits } from '#image/limits.ts';

/** A file tree as text, one line for each file, for comparisons. */
export type Tree = Readonly<Record<string, string>>;

const assetsRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';

/** Returns the sysroot of the set-up, which has the base image's busybox. */
export async function sysroot(): Promise<string> {
  return v.parse(assetsSchema, JSON.parse(await readFile(join(assetsRoot, 'assets/current.json'), 'utf8'))).sysroot;
}

export type Compression = 'none' | 'gzip' | 'zstd';

/** A layer of a test: the bytes of a tar, and changes to them. */
export interface LayerBytes {
  readonly tar: Buffer;
  readonly compression?: Compression;
  /** Default: the compressed tar. */
  readonly blob?: Buffer;
  /** Default: the tar's. */
  readonly diffId?: string;
}

/** Flattens layers with the real tools, mounts the result and reads it; leaves nothing behind. */
export async function flattenedTree(layers: readonly LayerBytes[], limits: Partial<ImageLimits> = {}): Promise<Tree> {
  return await withFlattened(layers, limits, readErofs);
}

/** Digest of the EROFS file system itself. */
export async function flattenedDigest(layers: readonly LayerBytes[]): Promise<string> {
  return await withFlattened(layers, {}, async (file) => sha256(await readFile(file)));
}

async function withFlattened<T>(
  layers: readonly LayerBytes[],
  limits: Partial<ImageLimits>,
  use: (file: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp('/var/tmp/podvm-flatten-');
  try {
    await run('chmod', ['0711', directory]);
    const files = await Promise.all(layers.map((layer, index) => writeLayer(directory, layer, index)));
    const { path, layers: behind } = await flatten(files, {
      directory,
      signal: new AbortController().signal,
      limits: { ...imageLimits, ...limits },
    });
    return await use(await joined(directory, [path, ...behind.map((layer) => layer.path)]));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Puts files one behind the other, in a new file unless there is only one. */
async function joined(directory: string, files: readonly [string, ...string[]]): Promise<string> {
  const [first, ...more] = files;
  if (more.length === 0) return first;
  const all = join(directory, 'joined');
  for (const file of files) await appendFile(all, await readFile(file));
  return all;
}

/** Everything in an image of a store, as the kernel shows it. */
export async function readImage({
  rootfsPath,
  layerPaths,
}: Pick<HeldImage, 'rootfsPath' | 'layerPaths'>): Promise<Tree> {
  const directory = await mkdtemp('/var/tmp/podvm-joined-');
  try {
    return await readErofs(await joined(directory, [rootfsPath, ...layerPaths]));
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function writeLayer(directory: string, layer: LayerBytes, index: number): Promise<Layer> {
  const path = join(directory, `layer-${index}`);
  const compression = layer.compression ?? 'none';
  await writeFile(path, layer.blob ?? compress(layer.tar, compression));
  return { path, diffId: layer.diffId ?? sha256(layer.tar) };
}

export function compress(bytes: Buffer, compression: Compression): Buffer {
  return { none: (b: Buffer) => b, gzip: gzipSync, zstd: zstdCompressSync }[compression](bytes);
}

export const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Everything in an EROFS file, as the kernel shows it. */
export async function readErofs(file: string): Promise<Tree> {
  const mount = await mkdtemp('/var/tmp/podvm-mount-');
  try {
    await run('mount', ['-t', 'erofs', '-o', 'loop,ro', file, mount]);
    try {
      return await treeOf(mount);
    } finally {
      await run('umount', [mount]);
    }
  } finally {
    await rm(mount, { recursive: true });
  }
}

async function treeOf(root: string): Promise<Tree> {
  const tree: Record<string, string> = {};
  const firstNames = new Map<number, string>();
  const xattrs = await xattrsOf(root);
  const visit = (path: string) => {
    const stats = lstatSync(join(root, path));
    const first = firstNames.get(stats.ino);
    if (first !== undefined) {
      tree[path] = `is ${first}`;
      return;
    }
    if (!stats.isDirectory()) firstNames.set(stats.ino, path);
    tree[path] = `${describe(join(root, path), stats)}${xattrs.get(path) ?? ''}`;
    if (!stats.isDirectory()) return;
    for (const name of readdirSync(join(root, path)).sort()) visit(path === '.' ? name : `${path}/${name}`);
  };
  visit('.');
  return tree;
}

function describe(path: string, stats: Stats): string {
  const owner = stats.uid === 0 && stats.gid === 0 ? '' : ` ${stats.uid}:${stats.gid}`;
  const mode = `${(stats.mode & 0o7777).toString(8).padStart(4, '0')}${owner}`;
  if (stats.isDirectory()) return `dir ${mode}`;
  if (stats.isSymbolicLink()) return `-> ${readlinkSync(path)}`;
  if (stats.isFIFO()) return `fifo ${mode}`;
  const { rdev } = stats;
  const device = `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`;
  if (stats.isCharacterDevice()) return `char ${device} ${mode}`;
  if (stats.isBlockDevice()) return `block ${device} ${mode}`;
  return `file ${mode} ${contentOf(readFileSync(path))}`;
}

/** Returns short content unchanged, and long content as its length and digest. */
export function contentOf(bytes: Buffer): string {
  return bytes.length <= 64 ? JSON.stringify(bytes.toString()) : `${bytes.length} bytes ${sha256(bytes).slice(7, 23)}`;
}

async function xattrsOf(root: string): Promise<ReadonlyMap<string, string>> {
  const args = ['--recursive', '--physical', '--no-dereference', '--dump', '--match=-', '--encoding=hex', '.'];
  const { stdout } = await run('getfattr', ['--absolute-names', ...args], { cwd: root });
  const found = new Map<string, string>();
  for (const file of stdout.split('\n\n')) {
    const [head = '', ...lines] = file.split('\n');
    const path = head.replace('# file: ', '').replace(/^\.\//, '');
    if (lines.length > 0)
      found.set(
        path,
        ` {${lines
          .filter((line) => line !== '')
          .sort()
          .join(', ')}}`,
      );
  }
  return found;
}

/** Loop devices, jailed processes and directories that tests of images may leave; for before and after. */
export async function traces(): Promise<readonly string[]> {
  const { stdout: loops } = await run('losetup', ['--all']);
  const left = readdirSync('/var/tmp').filter((name) => /^podvm-(?:flatten|mount|store)-/.test(name));
  const jailed = [
    ...(await pidsThatMount('/var/tmp/podvm-flatten-')),
    ...(await pidsThatMount('/var/tmp/podvm-store-')),
  ];
  return [...loops.split('\n').filter((line) => /podvm-(?:flatten|store)-/.test(line)), ...left, ...jailed];
}

/** Processes in a mount namespace of their own with a mount below this path, found by its last name. */
export async function pidsThatMount(path: string): Promise<readonly string[]> {
  const own = await readlink('/proc/self/ns/mnt');
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if ((await readlink(`/proc/${pid}/ns/mnt`)) === own) continue;
      const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8');
      if (mounts.split('\n').some((line) => line.split(' ')[3]?.includes(basename(path)))) found.push(pid);
    } catch {
      // a process that has ended meanwhile
    }
  }
  return found;
}
