import assert from 'node:assert/strict';

const page = 4096;
const types = { 0o10: 'file', 0o04: 'directory', 0o02: 'char', 0o06: 'block', 0o01: 'fifo', 0o12: 'symlink' } as const;
const prefixes = ['', 'user.', 'system.posix_acl_access', 'system.posix_acl_default', 'trusted.', '', 'security.'];

/**
 * Reads an EROFS file of extended inodes without compression, and describes each path in a line: type, links, owner and
 * attributes, and content. Checks what the kernel relies on: order of names, and that nothing inline leaves its block.
 */
export function readErofsFile(file: Buffer): Record<string, string> {
  assert.equal(file.readUInt32LE(1024), 0xe0f5_e1e2);
  assert.equal(file.readUInt32LE(1024 + 36) * page, file.length);
  const base = file.readUInt32LE(1024 + 40) * page;
  const found: Record<string, string> = {};
  const known = new Map<number, string>();
  const visit = (number: number, parent: number, path: string, entryType: number) => {
    const inode = readInode(file, base + number * 32);
    assert.equal(entryTypes[inode.type], entryType, path);
    const first = known.get(number);
    if (first !== undefined && inode.type !== 'directory') {
      found[path] = `is ${first}`;
      return;
    }
    assert.equal(first, undefined, `${path} is a second name of a directory`);
    known.set(number, path);
    found[path] = `${inode.type} ${inode.links} ${inode.about}${inode.type === 'directory' ? '' : ` ${inode.content}`}`;
    if (inode.type !== 'directory') return;
    const entries = readDirectory(inode.bytes);
    const names = entries.map(({ name }) => name);
    assert.deepEqual(names, [...names].sort(), path);
    for (const { name, number: of, type } of entries) {
      if (name === '.' || name === '..') assert.equal(of, name === '.' ? number : parent, `${path}/${name}`);
      else visit(of, number, path === '.' ? name : `${path}/${name}`, type);
    }
    assert.ok(names.includes('.') && names.includes('..'), path);
  };
  const root = file.readUInt16LE(1024 + 14);
  assert.notEqual(root, 0);
  visit(root, root, '.', 2);
  assert.equal(known.size, Number(file.readBigUInt64LE(1024 + 16)));
  return found;
}

const entryTypes = { file: 1, directory: 2, char: 3, block: 4, fifo: 5, symlink: 7 } as const;

function readInode(file: Buffer, at: number) {
  const format = file.readUInt16LE(at);
  assert.ok(format === 1 || format === 5, `format ${format}`);
  const mode = file.readUInt16LE(at + 4);
  const type = types[(mode >> 12) as keyof typeof types]; // SAFE: asserted
  assert.ok(type !== undefined, `mode ${mode.toString(8)}`);
  const count = file.readUInt16LE(at + 2);
  const xattrBytes = count === 0 ? 0 : 12 + (count - 1) * 4;
  const size = Number(file.readBigUInt64LE(at + 8));
  const place = file.readUInt32LE(at + 16);
  const numbers = [mode & 0o7777, file.readUInt32LE(at + 24), file.readUInt32LE(at + 28)];
  const times = [Number(file.readBigUInt64LE(at + 32)), file.readUInt32LE(at + 40)];
  const xattrs = readXattrs(file.subarray(at + 64, at + 64 + xattrBytes));
  const endAt = at + 64 + xattrBytes;
  const end = size % page;
  const isInline = format === 5;
  if (isInline) assert.ok(end > 0 && (endAt % page) + end <= page, 'inline content leaves its block');
  const whole = file.subarray(place * page, place * page + (isInline ? size - end : size));
  const isDevice = type === 'char' || type === 'block';
  const bytes = isDevice
    ? Buffer.alloc(0)
    : Buffer.concat([whole, isInline ? file.subarray(endAt, endAt + end) : Buffer.alloc(0)]);
  assert.equal(bytes.length, size);
  const device = `${(place >> 8) & 0xfff}:${(place & 0xff) | ((place >>> 12) & 0xfff00)}`;
  return {
    type,
    links: file.readUInt32LE(at + 44),
    about: [...numbers, ...times, ...xattrs].join(' '),
    content: isDevice ? device : JSON.stringify(bytes.toString('latin1')),
    bytes,
  };
}

function readXattrs(bytes: Buffer): readonly (readonly [string, string])[] {
  const found: [string, string][] = [];
  for (let at = 12; at < bytes.length;) {
    const [nameBytes = 0, prefix = 0] = bytes.subarray(at, at + 2);
    const valueBytes = bytes.readUInt16LE(at + 2);
    const text = bytes.toString('latin1', at + 4, at + 4 + nameBytes + valueBytes);
    found.push([`${prefixes[prefix]}${text.slice(0, nameBytes)}`, text.slice(nameBytes)]);
    at += Math.ceil((4 + nameBytes + valueBytes) / 4) * 4;
  }
  return found;
}

function readDirectory(
  bytes: Buffer,
): readonly { readonly name: string; readonly number: number; readonly type: number }[] {
  const entries = [];
  for (let blockAt = 0; blockAt < bytes.length; blockAt += page) {
    const block = bytes.subarray(blockAt, blockAt + page);
    const count = block.readUInt16LE(8) / 12;
    for (let at = 0; at < count; at += 1) {
      const nameAt = block.readUInt16LE(at * 12 + 8);
      const nameEnd = at + 1 < count ? block.readUInt16LE((at + 1) * 12 + 8) : block.length;
      const [name = ''] = block.toString('latin1', nameAt, nameEnd).split('\0');
      entries.push({ name, number: Number(block.readBigUInt64LE(at * 12)), type: block.readUInt8(at * 12 + 10) });
    }
  }
  return entries;
}
