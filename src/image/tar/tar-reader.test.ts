import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { imageLimits } from '../limits.ts';
import { tarOf, type TarSpec } from './tar-builder.ts';
import { readTar } from './tar-reader.ts';
import { propertyRuns } from '../../../test/property-runs.ts';

const fault = (reason: string) => new PodvmError('corrupt', reason);
const limits = { ...imageLimits, maxExtraBytes: 4096, maxSparsePieces: 100 };

async function* cutInto(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Name, type, target and content of every member. */
async function membersOf(bytes: Buffer, chunkBytes = 512): Promise<readonly string[]> {
  const members: string[] = [];
  for await (const entry of readTar(cutInto(bytes, chunkBytes), limits, fault)) {
    if (entry.size >= 100_000) throw fault('it has more bytes than are read here'); // like the budget of an image
    const parts: Buffer[] = [];
    for await (const part of entry.content()) parts.push(part);
    const content = entry.type === 'file' ? Buffer.concat(parts).toString('latin1') : '';
    members.push(JSON.stringify([entry.name, entry.type, entry.target, content]));
  }
  return members;
}

const nameBytes = fc.string({ unit: fc.constantFrom('a', 'b', '.', '-', 'ü', ' ', '\n'), minLength: 1, maxLength: 60 });
const name = fc.array(nameBytes, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'));
const spec: fc.Arbitrary<TarSpec> = fc.record(
  {
    name,
    type: fc.constantFrom('file', 'symlink', 'link', 'directory', 'fifo', 'char'),
    content: fc.string({ maxLength: 2000 }),
    target: name,
    dialect: fc.constantFrom('pax', 'gnu'),
    xattrs: fc.dictionary(fc.constantFrom('user.a', 'security.b'), fc.string({ minLength: 1, maxLength: 20 })),
  },
  { requiredKeys: ['name'] },
);
/** Gives content to files only, and targets to links only. */
const proper = ({ content, target, ...rest }: TarSpec): TarSpec => ({
  ...rest,
  ...(rest.type === undefined || rest.type === 'file' ? { content: content ?? '' } : {}),
  ...(rest.type === 'symlink' || rest.type === 'link' ? { target: target ?? 't' } : {}),
});
const specs = fc.array(spec.map(proper), { maxLength: 6 });

test('readTar() reads what was written, for any splitting of its bytes', async () => {
  await fc.assert(
    fc.asyncProperty(specs, fc.integer({ min: 1, max: 3000 }), async (written, chunkBytes) => {
      const expected = written.map((one) => {
        const type = one.type ?? 'file';
        const bytes = Buffer.from(one.name).toString('latin1');
        const full = type === 'directory' && !bytes.endsWith('/') ? `${bytes}/` : bytes;
        const target = Buffer.from(one.target ?? '').toString('latin1');
        return JSON.stringify([full, type, target, Buffer.from(one.content ?? '').toString('latin1')]);
      });
      assert.deepEqual(await membersOf(tarOf(written), chunkBytes), expected);
    }),
    { numRuns: propertyRuns(200) },
  );
});

test('readTar() throws only its own error for damaged and truncated tars', async () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 8 });
  let failures = 0;
  const runs = propertyRuns(500);
  await fc.assert(
    fc.asyncProperty(specs, changes, fc.nat(), fc.boolean(), async (written, damage, cut, keepsSums) => {
      const bytes = tarOf(written);
      for (const [at, byte] of damage) bytes[at % bytes.length] = byte;
      if (keepsSums) mendChecksums(bytes);
      try {
        await membersOf(bytes.subarray(0, bytes.length - (cut % 700)));
      } catch (error) {
        failures += 1;
        assert.ok(error instanceof PodvmError, String(error));
      }
    }),
    { numRuns: runs },
  );
  assert.ok(failures > runs / 10, `only ${failures} of the damaged tars were found out`);
});

test('readTar() survives random blocks with a valid checksum', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 512, maxLength: 512 }), { maxLength: 4 }), async (blocks) => {
      const bytes = Buffer.concat(blocks);
      for (let at = 0; at < bytes.length; at += 512) {
        bytes.write('0xgLKS12'.charAt(bytes[at] ?? 0) || '0', at + 156, 'latin1');
        bytes.write('00000001000\0', at + 124, 'latin1');
      }
      mendChecksums(bytes);
      await membersOf(bytes).catch((error: unknown) => assert.ok(error instanceof PodvmError, String(error)));
    }),
    { numRuns: propertyRuns(300) },
  );
});

/** Gives every block a valid checksum, so that damage gets past it. */
function mendChecksums(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.subarray(at, at + 512).every((byte) => byte === 0)) continue;
    bytes.fill(' ', at + 148, at + 156);
    const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
  }
}

test('readTar() bounds the sum of the records before one member', async () => {
  const record = tarOf([{ name: 'x', pax: { comment: 'c'.repeat(1000) } }]).subarray(0, 512 + 1024);
  const read = async (records: number) => {
    const tar = Buffer.concat([...Array.from({ length: records }, () => record), tarOf([{ name: 'x' }])]);
    const names: string[] = [];
    const small = { ...limits, maxExtraBytes: 10_000 };
    for await (const { name } of readTar(cutInto(tar, 4096), small, fault)) names.push(name);
    return names;
  };
  assert.deepEqual(await read(6), ['x']);
  await assert.rejects(read(10), { message: /an extended header has more than 10000 bytes/ });
});
