import { printable } from '#base/guest-text.ts';
import type { ImageLimits } from '../limits.ts';
import { blockBytes, type Fault, TarBytes } from './tar-bytes.ts';
import { readNumber } from './tar-number.ts';
import { checkSparse, expandSparse, readGnuSparse, readPaxSparse, type SparseMap } from './tar-sparse.ts';

export type MemberType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

/** A file's description in a tar. All text is bytes read as latin1: names need not be UTF-8, and stay unchanged. */
export interface TarMember {
  readonly name: string;
  readonly type: MemberType;
  /** Permissions with setuid, setgid and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeS: number;
  readonly mtimeNs: number;
  /** Size of a file, holes filled; `bytes`. */
  readonly size: number;
  /** Target of a link or symbolic link. */
  readonly target: string;
  /** Numbers of a device. */
  readonly device: readonly [major: number, minor: number];
  readonly xattrs: ReadonlyMap<string, string>;
}

export interface TarEntry extends TarMember {
  /** Yields the file's content, which can only be read before the next member. */
  content(): AsyncGenerator<Buffer>;
}

const types: Readonly<Record<string, MemberType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/** Values from the headers before a member, for which its own header has no room. */
interface Extra {
  readonly pax: Map<string, string>;
  name?: string;
  target?: string;
}

/**
 * Yields the members of a tar: ustar, PAX, GNU (long names, sparse files in the formats of GNU tar's `gnu` and PAX 1.0)
 * and the old Unix form. Reads to the end of the stream, so that a digest covers all of it. Errors: the fault. Source:
 * POSIX.1 pax, the GNU tar manual ("Tar Internals").
 */
export async function* readTar(
  stream: AsyncIterable<Buffer>,
  limits: ImageLimits,
  fault: Fault,
): AsyncGenerator<TarEntry> {
  const bytes = new TarBytes(stream, fault);
  try {
    for (;;) {
      const extra: Extra = { pax: new Map() };
      const header = await memberHeader(bytes, extra, limits, fault);
      if (header === undefined) break;
      yield* member(header, extra, bytes, limits, fault);
    }
    await bytes.drain();
  } finally {
    await bytes.close();
  }
}

/** Returns the next header of a file, after adding the headers before it to `extra`; undefined at the end. */
async function memberHeader(
  bytes: TarBytes,
  extra: Extra,
  limits: ImageLimits,
  fault: Fault,
): Promise<Buffer | undefined> {
  for (let extraBytes = 0; ;) {
    const header = await bytes.block();
    if (header === undefined) return undefined;
    if (isZero(header)) {
      const next = await bytes.block();
      if (next === undefined || isZero(next)) return undefined;
      throw fault('there is an empty block among its headers');
    }
    checkSum(header, fault);
    const flag = String.fromCharCode(header[156] ?? 0);
    if (!'xgLK'.includes(flag)) return header;
    const size = readNumber(header, 124, 12, fault);
    extraBytes += blockBytes + size; // any number of them may precede a member
    if (extraBytes > limits.maxExtraBytes + blockBytes || size < 0)
      throw fault(`an extended header has more than ${limits.maxExtraBytes} bytes`);
    const text = (await bytes.exactly(size)).toString('latin1');
    await bytes.skip(paddingOf(size));
    if (flag === 'x') readPax(text, extra.pax, fault);
    if (flag === 'L') extra.name = untilZero(text);
    if (flag === 'K') extra.target = untilZero(text);
    // `g` applies to all members that follow; git writes comments with it. containerd and Docker ignore it, too.
  }
}

async function* member(
  header: Buffer,
  { pax, name, target }: Extra,
  bytes: TarBytes,
  limits: ImageLimits,
  fault: Fault,
): AsyncGenerator<TarEntry> {
  const flag = String.fromCharCode(header[156] ?? 0);
  const fullName = pax.get('GNU.sparse.name') ?? pax.get('path') ?? name ?? headerName(header);
  const known = types[flag];
  if (known === undefined) throw fault(`${printable(fullName)} is of the unknown type ${printable(flag)}`);
  const type = flag === '\0' && fullName.endsWith('/') ? 'directory' : known;
  const dataBytes = type === 'file' ? (paxNumber(pax, 'size', fault) ?? readNumber(header, 124, 12, fault)) : 0;
  if (dataBytes < 0) throw fault(`${printable(fullName)} has a negative size`);
  const start = bytes.taken;
  const map = await sparseMap(header, flag, pax, dataBytes, bytes, limits, fault);
  const dataStart = flag === 'S' ? bytes.taken : start;
  const time = /^(-?\d{1,15})(?:\.(\d{1,9})\d*)?$/.exec(pax.get('mtime') ?? '');
  const entry: TarEntry = {
    name: fullName,
    type,
    mode: readNumber(header, 100, 8, fault) & 0o7777,
    uid: id(paxNumber(pax, 'uid', fault) ?? readNumber(header, 108, 8, fault), fault),
    gid: id(paxNumber(pax, 'gid', fault) ?? readNumber(header, 116, 8, fault), fault),
    mtimeS: time === null ? readNumber(header, 136, 12, fault) : Number(time[1]),
    mtimeNs: time === null ? 0 : Number((time[2] ?? '').padEnd(9, '0')),
    size: map?.size ?? dataBytes,
    target: pax.get('linkpath') ?? target ?? untilZero(header.toString('latin1', 157, 257)),
    device: type === 'char' || type === 'block' ? device(header, fault) : noDevice,
    xattrs: xattrsOf(pax, limits, fault),
    content: () => (map === undefined ? bytes.run(dataBytes) : expandSparse(map, bytes)),
  };
  yield entry;
  await bytes.skip(dataStart + dataBytes + paddingOf(dataBytes) - bytes.taken);
}

async function sparseMap(
  header: Buffer,
  flag: string,
  pax: ReadonlyMap<string, string>,
  dataBytes: number,
  bytes: TarBytes,
  limits: ImageLimits,
  fault: Fault,
): Promise<SparseMap | undefined> {
  let map: SparseMap;
  if (flag === 'S') map = await readGnuSparse(header, bytes, limits.maxSparsePieces, fault);
  else if (pax.get('GNU.sparse.major') === '1' && pax.get('GNU.sparse.minor') === '0') {
    map = await readPaxSparse(pax.get('GNU.sparse.realsize'), bytes, dataBytes, limits.maxSparsePieces, fault);
  } else if (['GNU.sparse.map', 'GNU.sparse.numblocks', 'GNU.sparse.major'].some((key) => pax.has(key))) {
    throw fault('it has a sparse file in a format before 1.0');
  } else return undefined;
  checkSparse(map, dataBytes - map.mapBytes, fault);
  return map;
}

/** Parses records of the form `<length> <key>=<value>\n`; an empty value cancels a record. */
function readPax(text: string, into: Map<string, string>, fault: Fault): void {
  for (let at = 0; at < text.length;) {
    const head = /^(\d{1,8}) ([^=]+)=/.exec(text.slice(at, at + 4096));
    const end = at + Number(head?.[1]);
    const [whole = '', , key = ''] = head ?? [];
    if (head === null || end > text.length || at + whole.length >= end || text[end - 1] !== '\n') {
      throw fault('an extended header is malformed');
    }
    const value = text.slice(at + whole.length, end - 1);
    if (value === '') into.delete(key);
    else into.set(key, value);
    at = end;
  }
}

const xattrPrefix = 'SCHILY.xattr.';
/** Shared by the many members without attributes. */
const noXattrs: ReadonlyMap<string, string> = new Map();
const noDevice = [0, 0] as const;

function xattrsOf(pax: ReadonlyMap<string, string>, limits: ImageLimits, fault: Fault): ReadonlyMap<string, string> {
  if (pax.size === 0) return noXattrs;
  const xattrs = new Map<string, string>();
  let bytes = 0;
  for (const [key, value] of pax) {
    if (!key.startsWith(xattrPrefix)) continue;
    const name = key.slice(xattrPrefix.length);
    if (!/^[a-z]+\.[^\0]+$/.test(name) || name.length > 255)
      throw fault('the name of an extended attribute is malformed');
    xattrs.set(name, value);
    bytes += name.length + value.length;
  }
  if (bytes > limits.maxXattrBytes)
    throw fault(`a file has more than ${limits.maxXattrBytes} bytes of extended attributes`);
  return xattrs;
}

function headerName(header: Buffer): string {
  const name = untilZero(header.toString('latin1', 0, 100));
  // GNU's format uses the bytes of POSIX' prefix for other fields.
  const isPosix = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? untilZero(header.toString('latin1', 345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function checkSum(header: Buffer, fault: Fault): void {
  let sum = 0;
  let signed = 0;
  for (let at = 0; at < blockBytes; at += 1) {
    const counted = at >= 148 && at < 156 ? 32 : (header[at] ?? 0);
    sum += counted;
    signed += counted > 127 ? counted - 256 : counted; // some old programs summed signed bytes
  }
  const said = readNumber(header, 148, 8, fault);
  if (said !== sum && said !== signed) throw fault('the checksum of a header is wrong');
}

function device(header: Buffer, fault: Fault): readonly [number, number] {
  const major = readNumber(header, 329, 8, fault);
  const minor = readNumber(header, 337, 8, fault);
  // The range of the kernel's 32-bit device numbers.
  if (major < 0 || major > 0xfff || minor < 0 || minor > 0xf_ffff) throw fault('a device has an invalid number');
  return [major, minor];
}

function paxNumber(pax: ReadonlyMap<string, string>, key: string, fault: Fault): number | undefined {
  const text = pax.get(key);
  if (text === undefined) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw fault(`the field ${key} of an extended header is not a number`);
  return value;
}

function id(value: number, fault: Fault): number {
  if (value < 0 || value > 0xffff_fffe) throw fault('a user or group is not a 32-bit number');
  return value;
}

const isZero = (block: Buffer) => block.every((byte) => byte === 0);
const untilZero = (text: string) => text.split('\0', 1)[0] ?? '';
const paddingOf = (bytes: number) => (blockBytes - (bytes % blockBytes)) % blockBytes;
