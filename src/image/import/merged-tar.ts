import type { ImageBudget } from './image-budget.ts';
import type { Directory, Leaf, Meta } from './layer-tree.ts';
import { blockBytes } from '../tar/tar-bytes.ts';
import type { MemberType, TarEntry } from '../tar/tar-reader.ts';

const flags: Readonly<Record<MemberType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

interface Header extends Meta {
  readonly type: MemberType;
  readonly path: string;
  readonly size?: number;
  readonly target?: string;
  readonly device?: readonly [number, number];
}

/** Reads one layer's members again, in the same order. */
export type ReadLayer = (layer: number) => AsyncIterable<TarEntry>;

/**
 * Yields the tree as one tar in a single plain form, the only form that mkfs.erofs sees: directories first, then the
 * files whose content survived in the order of the layers, then further names of files. Errors: those of the layers,
 * `exhausted` when paths exceed the budget.
 */
export async function* mergedTar(root: Directory, readLayer: ReadLayer, budget: ImageBudget): AsyncGenerator<Buffer> {
  const files = new Map<number, Map<number, { readonly leaf: Leaf; readonly path: string }>>();
  const links: { readonly leaf: Leaf; readonly path: string; readonly target: string }[] = [];
  const firstPath = new Map<Leaf, string>();
  yield* headerOf({ type: 'directory', path: './', ...root.meta });
  for (const [path, node] of walk(root, '')) {
    budget.spendMetadata(path.length);
    if (node.kind === 'directory') {
      yield* headerOf({ type: 'directory', path: `${path}/`, ...node.meta });
      continue;
    }
    const target = firstPath.get(node);
    if (target !== undefined) {
      links.push({ leaf: node, path, target });
      continue;
    }
    firstPath.set(node, path);
    if (node.member.type === 'file' && node.member.size > 0) {
      const ofLayer = files.get(node.layer) ?? new Map<number, { leaf: Leaf; path: string }>();
      files.set(node.layer, ofLayer.set(node.place, { leaf: node, path }));
    } else yield* headerOf({ ...node.member, path });
  }
  for (const [layer, wanted] of [...files].sort(([a], [b]) => a - b)) yield* contents(readLayer(layer), wanted);
  for (const { leaf, path, target } of links) yield* headerOf({ ...leaf.member, type: 'link', path, target, size: 0 });
  yield Buffer.alloc(2 * blockBytes);
}

/** Sums the bytes of all remaining files, each counted once. Errors: `exhausted` when paths exceed the budget. */
export function contentBytes(root: Directory, budget: ImageBudget): number {
  const leaves = new Set<Leaf>();
  let bytes = 0;
  for (const [path, node] of walk(root, '')) {
    budget.spendMetadata(path.length);
    if (node.kind === 'directory' || node.member.type !== 'file' || leaves.has(node)) continue;
    leaves.add(node);
    bytes += node.member.size;
  }
  return bytes;
}

async function* contents(
  entries: AsyncIterable<TarEntry>,
  wanted: ReadonlyMap<number, { readonly path: string }>,
): AsyncGenerator<Buffer> {
  let place = 0;
  let left = wanted.size;
  for await (const entry of entries) {
    const found = wanted.get(place);
    place += 1;
    if (found === undefined) continue;
    yield* headerOf({ ...entry, path: found.path });
    yield* entry.content();
    yield Buffer.alloc((blockBytes - (entry.size % blockBytes)) % blockBytes);
    left -= 1;
    if (left === 0) return;
  }
}

/** Yields every node below, parents before children, sorted by name so that the same layers give the same bytes. */
function* walk(directory: Directory, prefix: string): Generator<[path: string, node: Directory | Leaf]> {
  for (const [name, { node }] of [...directory.entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
    yield [`${prefix}${name}`, node];
    if (node.kind === 'directory') yield* walk(node, `${prefix}${name}/`);
  }
}

function* headerOf(header: Header): Generator<Buffer> {
  const records = new Map<string, string>();
  const fits = (key: string, value: string, max: number) => {
    if (value.length > max) records.set(key, value);
    return value.slice(0, max);
  };
  const number = (key: string, value: number, max: number) => {
    if (value <= max) return value;
    records.set(key, String(value));
    return 0;
  };
  const block = Buffer.alloc(blockBytes);
  block.write(fits('path', header.path, 100), 0, 'latin1');
  block.write(octal(header.mode, 8), 100, 'latin1');
  block.write(octal(number('uid', header.uid, 0o7777777), 8), 108, 'latin1');
  block.write(octal(number('gid', header.gid, 0o7777777), 8), 116, 'latin1');
  const size = header.type === 'file' ? (header.size ?? 0) : 0;
  block.write(octal(number('size', size, 0o77777777777), 12), 124, 'latin1');
  // EROFS counts seconds from 1970 as an unsigned number.
  const seconds = Math.max(0, header.mtimeS);
  block.write(octal(seconds > 0o77777777777 ? 0 : seconds, 12), 136, 'latin1');
  if (header.mtimeNs > 0 || seconds > 0o77777777777)
    records.set('mtime', `${seconds}.${String(header.mtimeNs).padStart(9, '0')}`);
  block.write(flags[header.type], 156, 'latin1');
  const hasTarget = header.type === 'link' || header.type === 'symlink';
  block.write(hasTarget ? fits('linkpath', header.target ?? '', 100) : '', 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write(octal(header.device?.[0] ?? 0, 8), 329, 'latin1');
  block.write(octal(header.device?.[1] ?? 0, 8), 337, 'latin1');
  for (const [name, value] of header.xattrs) records.set(`SCHILY.xattr.${name}`, value);
  if (records.size > 0) yield* extendedHeader(records);
  yield withChecksum(block);
}

function* extendedHeader(records: ReadonlyMap<string, string>): Generator<Buffer> {
  const body = Buffer.from([...records].map(([key, value]) => record(key, value)).join(''), 'latin1');
  const block = Buffer.alloc(blockBytes);
  block.write('extended', 0, 'latin1');
  block.write(octal(0o644, 8), 100, 'latin1');
  block.write(octal(body.length, 12), 124, 'latin1');
  block.write('x', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  yield withChecksum(block);
  yield body;
  yield Buffer.alloc((blockBytes - (body.length % blockBytes)) % blockBytes);
}

/** `<length> <key>=<value>\n`, where the length includes its own digits. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return `${length}${rest}`;
}

function withChecksum(block: Buffer): Buffer {
  block.fill(' ', 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const octal = (value: number, width: number) => value.toString(8).padStart(width - 1, '0');
