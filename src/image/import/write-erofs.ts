import type { Content, ContentFile, ImageFiles } from './content-file.ts';
import {
  attributes,
  byName,
  deviceNumber,
  directory,
  directoryBytes,
  firstBlock,
  inode,
  inodeBytes,
  type InodeKind,
  type NamedInode,
  pageBytes,
  slotBytes,
} from './erofs-format.ts';
import { InodeSlots } from './inode-slots.ts';
import type { Directory, Leaf } from './layer-tree.ts';

type Node = Directory | Leaf;

/** Where a node's inode and content are. */
interface Place {
  /** Position of the inode behind the first block of inodes. */
  readonly at: number;
  readonly parent: Directory;
  links: number;
  /** First of its blocks among those behind the inodes; undefined: it has none there. */
  readonly block: number | undefined;
  /** Size of a directory's or link's content. */
  readonly size: number;
}

/**
 * Completes the EROFS file of a tree whose files have their content in it: inodes in the order of the tree, as many to a
 * block as fit, then large directories. The files of large layers follow. The same layers give the same files.
 */
export async function writeErofs(root: Directory, file: ContentFile): Promise<ImageFiles> {
  await file.compact(contentOf(root));
  await file.finishContent();
  const inodesAt = file.blocks;
  const { places, inodeBlocks, blocks } = placesOf(root);
  const ownBlocks = inodesAt + inodeBlocks + blocks;
  const layersAt = file.layersBehind(ownBlocks);
  await writeInodes(places, file, { blocksAt: inodesAt + inodeBlocks, layersAt });
  for (const [node, { block }] of places) if (block !== undefined) await file.addBlocks(padded(bytesOf(node, places)));
  const number = places.get(root)?.at ?? 0;
  return await file.finish(
    firstBlock({ root: number / slotBytes, inodes: places.size, blocks: layersAt.at(-1) ?? ownBlocks, inodesAt }),
  );
}

/** Returns the content of each remaining file once. */
function contentOf(root: Directory): ReadonlySet<Content> {
  const found = new Set<Content>();
  for (const { node } of walk(root)) if (node.kind === 'leaf' && node.content !== undefined) found.add(node.content);
  return found;
}

/** Yields every node below by each of its names, directories before what is in them, sorted by name. */
function* walk(root: Directory): Generator<{ readonly node: Node; readonly parent: Directory }> {
  const ahead: { readonly node: Node; readonly parent: Directory }[] = [{ node: root, parent: root }];
  for (let next = ahead.pop(); next !== undefined; next = ahead.pop()) {
    yield next;
    const parent = next.node;
    if (parent.kind === 'leaf') continue;
    const names = [...parent.entries].sort(([a], [b]) => byName(b, a));
    for (const [, { node }] of names) ahead.push({ node, parent });
  }
}

function placesOf(root: Directory): {
  readonly places: ReadonlyMap<Node, Place>;
  readonly inodeBlocks: number;
  readonly blocks: number;
} {
  const places = new Map<Node, Place>();
  const slots = new InodeSlots(slotBytes);
  let blocks = 0;
  for (const { node, parent } of walk(root)) {
    const known = places.get(node);
    if (known !== undefined) {
      known.links += 1;
      continue;
    }
    const own = inodeBytes + attributes(xattrsOf(node)).length;
    const { size, end } = sizesOf(node);
    const isInline = own + end <= pageBytes;
    const at = slots.take(own + (isInline ? end : 0));
    const needsBlocks = !isInline && end > 0;
    places.set(node, { at, parent, links: 1, size, block: needsBlocks ? blocks : undefined });
    if (needsBlocks) blocks += Math.ceil(size / pageBytes);
    if (node === root) slots.close(); // a mount reads its block, in which no content of files is to be
  }
  // A directory is named by its parent, by itself and by each directory in it.
  for (const [node, place] of places) if (node.kind === 'directory') place.links = 2 + directoriesIn(node);
  return { places, inodeBlocks: slots.blocks, blocks };
}

/** Returns the size of a node's content, and how much of it is to follow the inode if it fits. */
function sizesOf(node: Node): { readonly size: number; readonly end: number } {
  if (node.kind === 'directory') {
    const size = directoryBytes([...node.entries.keys(), '.', '..'].sort(byName));
    return { size, end: size };
  }
  const { type, target } = node.member;
  if (type === 'symlink') return { size: target.length, end: target.length };
  const { size = 0, endAt } = node.content ?? {};
  return { size, end: endAt === undefined ? 0 : size % pageBytes };
}

/** Whether the end of a file's content can follow its inode. */
export function hasInlineEnd({ member }: Leaf): boolean {
  return inodeBytes + attributes(member.xattrs).length + (member.size % pageBytes) <= pageBytes;
}

function directoriesIn({ entries }: Directory): number {
  let count = 0;
  for (const { node } of entries.values()) if (node.kind === 'directory') count += 1;
  return count;
}

/** First blocks of what is behind the inodes, and of the layers with files of their own. */
interface Firsts {
  readonly blocksAt: number;
  readonly layersAt: readonly number[];
}

async function writeInodes(places: ReadonlyMap<Node, Place>, file: ContentFile, firsts: Firsts): Promise<void> {
  let block = Buffer.alloc(pageBytes);
  let blockAt = 0;
  let count = 0;
  for (const [node, place] of [...places].sort(([, a], [, b]) => a.at - b.at)) {
    const bytes = recordOf(node, place, places, file, { count: (count += 1), ...firsts });
    for (; place.at >= blockAt + block.length; blockAt += block.length, block = Buffer.alloc(pageBytes))
      await file.addBlocks(block);
    const needed = wholeBlocks(place.at - blockAt + bytes.length);
    if (needed > block.length) block = Buffer.concat([block], needed);
    bytes.copy(block, place.at - blockAt);
  }
  await file.addBlocks(block);
}

function recordOf(
  node: Node,
  { links, block, size }: Place,
  places: ReadonlyMap<Node, Place>,
  file: ContentFile,
  { count, blocksAt, layersAt }: Firsts & { readonly count: number },
): Buffer {
  const meta = node.kind === 'directory' ? node.meta : node.member;
  const end = block === undefined ? endOf(node, places, file) : Buffer.alloc(0);
  const { mode, uid, gid, mtimeS, mtimeNs } = meta;
  const xattrs = attributes(meta.xattrs);
  const place = block === undefined ? placeOf(node, layersAt) : blocksAt + block;
  const kind = kindOf(node);
  const isInline = end.length > 0;
  const head = inode({ kind, mode, uid, gid, mtimeS, mtimeNs, size, count, links, isInline, place, xattrs });
  return Buffer.concat([head, end]);
}

/** Returns what follows a node's inode. */
function endOf(node: Node, places: ReadonlyMap<Node, Place>, file: ContentFile): Buffer {
  if (node.kind === 'directory' || node.member.type === 'symlink') return bytesOf(node, places);
  return node.content === undefined ? Buffer.alloc(0) : file.readEnd(node.content);
}

function placeOf(node: Node, layersAt: readonly number[]): number {
  if (node.kind === 'directory') return 0;
  const { type, device } = node.member;
  if (type === 'char' || type === 'block') return deviceNumber(device);
  const { block = 0, layer } = node.content ?? {};
  return layer === undefined ? block : (layersAt[layer] ?? 0) + block;
}

/** Returns the content of a directory, or the target of a link. */
function bytesOf(node: Node, places: ReadonlyMap<Node, Place>): Buffer {
  if (node.kind === 'leaf') return Buffer.from(node.member.target, 'latin1');
  const numberOf = (of: Node) => (places.get(of)?.at ?? 0) / slotBytes;
  const place = places.get(node);
  const entries: NamedInode[] = [
    { name: '.', kind: 'directory', number: numberOf(node) },
    { name: '..', kind: 'directory', number: numberOf(place?.parent ?? node) },
  ];
  for (const [name, { node: of }] of node.entries) entries.push({ name, kind: kindOf(of), number: numberOf(of) });
  return directory(
    entries.sort((a, b) => byName(a.name, b.name)),
    place?.size ?? 0,
  );
}

function kindOf(node: Node): InodeKind {
  if (node.kind === 'directory') return 'directory';
  const { type } = node.member;
  return type === 'link' ? 'file' : type;
}

const xattrsOf = (node: Node) => (node.kind === 'directory' ? node.meta : node.member).xattrs;

const wholeBlocks = (bytes: number) => Math.ceil(bytes / pageBytes) * pageBytes;
/** Adds zeros up to whole blocks. */
const padded = (bytes: Buffer) => Buffer.concat([bytes], wholeBlocks(bytes.length));
