/** Writes tar archives for tests, with every form of header found in images. Not for production use. */
export interface TarSpec {
  readonly name: string;
  readonly type?: 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo' | 'contiguous' | 'unknown';
  readonly content?: string | Uint8Array;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeS?: number;
  /** Target of a link or symlink. */
  readonly target?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly xattrs?: Readonly<Record<string, string | Uint8Array>>;
  /** Format for fields that do not fit a plain header; default `pax`. */
  readonly dialect?: 'pax' | 'gnu';
  /** Further PAX records. */
  readonly pax?: Readonly<Record<string, string>>;
}

const block = 512;
const flags = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  contiguous: '7',
  unknown: 'Q',
} as const;

export function tarOf(entries: readonly TarSpec[]): Buffer {
  return Buffer.concat([...entries.map(entryBytes), Buffer.alloc(2 * block)]);
}

/** Returns the archive without its two empty final blocks, for tests that append something. */
export function entryBytes(entry: TarSpec): Buffer {
  const content = Buffer.from(entry.content ?? '');
  const parts: Buffer[] = [];
  const records: Record<string, string | Uint8Array> = { ...entry.pax };
  for (const [name, value] of Object.entries(entry.xattrs ?? {})) records[`SCHILY.xattr.${name}`] = value;
  const isGnu = entry.dialect === 'gnu';
  if (Buffer.byteLength(entry.name) > 100) {
    if (isGnu) parts.push(header({ name: '././@LongLink', flag: 'L' }, `${entry.name}\0`));
    else records['path'] = entry.name;
  }
  if (Buffer.byteLength(entry.target ?? '') > 100) {
    if (isGnu) parts.push(header({ name: '././@LongLink', flag: 'K' }, `${entry.target}\0`));
    else records['linkpath'] = entry.target ?? '';
  }
  if (!isGnu && (entry.uid ?? 0) > 0o7777777) records['uid'] = String(entry.uid);
  if (!isGnu && (entry.gid ?? 0) > 0o7777777) records['gid'] = String(entry.gid);
  const pax = Object.entries(records).map(([key, value]) => paxRecord(key, value));
  if (pax.length > 0) parts.push(header({ name: 'PaxHeaders/x', flag: 'x' }, Buffer.concat(pax)));
  const isDirectory = entry.type === 'directory';
  const head = {
    name: isDirectory && !entry.name.endsWith('/') ? `${entry.name}/` : entry.name,
    flag: flags[entry.type ?? 'file'],
    mode: entry.mode ?? (isDirectory ? 0o755 : 0o644),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    mtimeS: entry.mtimeS ?? 1_600_000_000,
    target: entry.target ?? '',
    device: entry.device ?? [0, 0],
    isGnu,
  };
  return Buffer.concat([...parts, header(head, content)]);
}

interface Header {
  readonly name: string;
  readonly flag: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeS?: number;
  readonly target?: string;
  readonly device?: readonly [number, number];
  readonly isGnu?: boolean;
}

function header(head: Header, content: string | Uint8Array): Buffer {
  const body = Buffer.from(content);
  const bytes = Buffer.alloc(block);
  bytes.write(cut(head.name), 0, 'latin1');
  number(bytes, 100, 8, head.mode ?? 0o644);
  number(bytes, 108, 8, head.isGnu ? (head.uid ?? 0) : Math.min(head.uid ?? 0, 0o7777777));
  number(bytes, 116, 8, head.isGnu ? (head.gid ?? 0) : Math.min(head.gid ?? 0, 0o7777777));
  number(bytes, 124, 12, body.length);
  number(bytes, 136, 12, head.mtimeS ?? 0);
  bytes.write(head.flag, 156, 'latin1');
  bytes.write(cut(head.target ?? ''), 157, 'latin1');
  bytes.write(head.isGnu ? 'ustar  \0' : 'ustar\x0000', 257, 'latin1');
  number(bytes, 329, 8, head.device?.[0] ?? 0);
  number(bytes, 337, 8, head.device?.[1] ?? 0);
  bytes.fill(' ', 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([bytes, body, Buffer.alloc((block - (body.length % block)) % block)]);
}

const cut = (text: string) => Buffer.from(text).subarray(0, 100).toString('latin1');

/** Octal, or base 256 when octal does not fit. */
function number(bytes: Buffer, at: number, size: number, value: number): void {
  const octal = value.toString(8).padStart(size - 1, '0');
  if (octal.length < size) bytes.write(octal, at, 'latin1');
  else {
    bytes.writeUInt32BE(value, at + size - 4);
    bytes[at] = 0x80;
  }
}

/** `<length> <key>=<value>\n`, where the length includes its own digits. */
function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}
