import type { MemberType, TarMember } from '../tar/tar-reader.ts';

/**
 * The records of an EROFS file without compression: extended inodes, with their attributes and, if there is room in the
 * block, their content behind them. Numbers are little-endian; text is bytes read as latin1. Source: the kernel's
 * `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`.
 */
export const pageBytes = 4096;
/** Unit of the number of an inode, which says where it is. */
export const slotBytes = 32;
export const inodeBytes = 64;

/** Position of the superblock, which begins with the magic number. */
export const superblockAt = 1024;
export const magic = 0xe0f5_e1e2;
const pageBits = 12;
/** The inodes have times of their own. */
const hasTimes = 2;

const kinds: Readonly<Record<Exclude<MemberType, 'link'>, { readonly mode: number; readonly entry: number }>> = {
  file: { mode: 0o100000, entry: 1 },
  directory: { mode: 0o040000, entry: 2 },
  char: { mode: 0o020000, entry: 3 },
  block: { mode: 0o060000, entry: 4 },
  fifo: { mode: 0o010000, entry: 5 },
  symlink: { mode: 0o120000, entry: 7 },
};

export type InodeKind = keyof typeof kinds;

export interface Superblock {
  /** The number of the root directory's inode: below 2^16. */
  readonly root: number;
  readonly inodes: number;
  /** Size of the file, and the address of number 0, in blocks. */
  readonly blocks: number;
  readonly inodesAt: number;
}

/** Returns the first block of the file. */
export function firstBlock({ root, inodes, blocks, inodesAt }: Superblock): Buffer {
  const block = Buffer.alloc(pageBytes);
  const at = superblockAt;
  block.writeUInt32LE(magic, at);
  block.writeUInt32LE(hasTimes, at + 8);
  block.writeUInt8(pageBits, at + 12);
  block.writeUInt16LE(root, at + 14);
  block.writeBigUInt64LE(BigInt(inodes), at + 16);
  block.writeUInt32LE(blocks, at + 36);
  block.writeUInt32LE(inodesAt, at + 40);
  return block;
}

export interface Inode extends Pick<TarMember, 'mode' | 'uid' | 'gid' | 'mtimeS' | 'mtimeNs'> {
  readonly kind: InodeKind;
  readonly size: number;
  /** Count of the inode among all, which a program sees where 32 bits must do. */
  readonly count: number;
  readonly links: number;
  /** Whether the last part of the content, or all of it, follows the inode. */
  readonly isInline: boolean;
  /** First block of the content, or the device's number. */
  readonly place: number;
  /** Result of `attributes`. */
  readonly xattrs: Buffer;
}

/** Returns an inode with its attributes. */
export function inode(of: Inode): Buffer {
  const bytes = Buffer.alloc(inodeBytes + of.xattrs.length);
  bytes.writeUInt16LE(of.isInline ? 0b0101 : 0b0001, 0); // extended; content plain, or with an inline end
  bytes.writeUInt16LE(of.xattrs.length === 0 ? 0 : (of.xattrs.length - xattrHeadBytes) / 4 + 1, 2);
  bytes.writeUInt16LE(kinds[of.kind].mode | of.mode, 4);
  bytes.writeBigUInt64LE(BigInt(of.size), 8);
  bytes.writeUInt32LE(of.place, 16);
  bytes.writeUInt32LE(of.count, 20);
  bytes.writeUInt32LE(of.uid, 24);
  bytes.writeUInt32LE(of.gid, 28);
  bytes.writeBigUInt64LE(BigInt(Math.max(0, of.mtimeS)), 32); // seconds from 1970, unsigned
  bytes.writeUInt32LE(of.mtimeNs, 40);
  bytes.writeUInt32LE(of.links, 44);
  of.xattrs.copy(bytes, inodeBytes);
  return bytes;
}

/** Returns the number of a device as the kernel encodes it (`new_encode_dev`). */
export function deviceNumber([major, minor]: readonly [number, number]): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

const xattrHeadBytes = 12;
/** Prefixes of names, and their numbers; `whole` is a name of its own. The kernel shows no others. */
const prefixes: readonly { readonly text: string; readonly index: number; readonly whole?: true }[] = [
  { text: 'user.', index: 1 },
  { text: 'system.posix_acl_access', index: 2, whole: true },
  { text: 'system.posix_acl_default', index: 3, whole: true },
  { text: 'trusted.', index: 4 },
  { text: 'security.', index: 6 },
];

/** Returns extended attributes as they follow an inode, without those that EROFS cannot store; none: no bytes. */
export function attributes(xattrs: ReadonlyMap<string, string>): Buffer {
  if (xattrs.size === 0) return noBytes;
  const parts: Buffer[] = [];
  for (const [name, value] of xattrs) {
    const prefix = prefixes.find(({ text, whole }) => (whole ? name === text : name.startsWith(text)));
    if (prefix === undefined) continue;
    const rest = name.slice(prefix.text.length);
    const part = Buffer.alloc(Math.ceil((4 + rest.length + value.length) / 4) * 4);
    part.writeUInt8(rest.length, 0);
    part.writeUInt8(prefix.index, 1);
    part.writeUInt16LE(value.length, 2);
    part.write(rest + value, 4, 'latin1');
    parts.push(part);
  }
  return parts.length === 0 ? noBytes : Buffer.concat([Buffer.alloc(xattrHeadBytes), ...parts]);
}

const noBytes = Buffer.alloc(0);
const entryBytes = 12;

export interface NamedInode {
  readonly name: string;
  readonly kind: InodeKind;
  readonly number: number;
}

/** Compares names as the kernel's search does, byte by byte. */
export const byName = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Returns the size of a directory with these names, in order. */
export function directoryBytes(names: Iterable<string>): number {
  let whole = 0;
  let used = 0;
  for (const name of names) {
    const more = entryBytes + name.length;
    if (used + more > pageBytes) {
      whole += pageBytes;
      used = 0;
    }
    used += more;
  }
  return whole + used;
}

/** Returns the content of a directory: in each block first its entries, then their names. */
export function directory(entries: readonly NamedInode[], bytes: number): Buffer {
  const content = Buffer.alloc(bytes);
  for (let next = 0, blockAt = 0; next < entries.length; blockAt += pageBytes) {
    let end = next;
    for (let used = 0; end < entries.length; end += 1) {
      used += entryBytes + (entries[end]?.name.length ?? 0);
      if (used > pageBytes) break;
    }
    let nameAt = (end - next) * entryBytes;
    for (const [at, { name, kind, number }] of entries.slice(next, end).entries()) {
      const entryAt = blockAt + at * entryBytes;
      content.writeBigUInt64LE(BigInt(number), entryAt);
      content.writeUInt16LE(nameAt, entryAt + 8);
      content.writeUInt8(kinds[kind].entry, entryAt + 10);
      content.write(name, blockAt + nameAt, 'latin1');
      nameAt += name.length;
    }
    next = end;
  }
  return content;
}
