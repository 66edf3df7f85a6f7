import assert from 'node:assert/strict';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import type { TarMember } from '../tar/tar-reader.ts';
import { listedMembers, MemberList } from './member-list.ts';
import { propertyRuns } from '../../../test/property-runs.ts';

const fault = (reason: string) => new PodvmError('corrupt', reason);

async function withDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-members-'));
  try {
    return await use(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function listed(path: string, blocks: number) {
  await using file = await open(path);
  return await Array.fromAsync(listedMembers(file.fd, blocks, fault));
}

test('listedMembers() yields what MemberList was given, for any members', async () => {
  const text = fc.string({ unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)) });
  const natural = fc.nat();
  const member: fc.Arbitrary<TarMember> = fc.record({
    name: text,
    type: fc.constantFrom('file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo'),
    mode: natural,
    uid: natural,
    gid: natural,
    mtimeS: fc.maxSafeInteger(),
    mtimeNs: natural,
    size: fc.nat({ max: 4096 }),
    target: text,
    device: fc.tuple(natural, natural),
    xattrs: fc.array(fc.tuple(text, text)).map((pairs) => new Map(pairs)),
  });
  const placed = fc.tuple(member, fc.option(fc.nat({ max: 9 }), { nil: undefined }));
  await fc.assert(
    fc.asyncProperty(fc.array(placed), async (given) =>
      withDirectory(async (directory) => {
        await using list = await MemberList.create(directory, 'members-0');
        for (const [one, block] of given) await list.add(one, block);
        await list.flush();
        const expected = given.map(([one, block]) => ({
          member: { ...one },
          ...(block === undefined ? {} : { block }),
        }));
        assert.deepEqual(await listed(join(directory, 'members-0'), 10), expected);
      }),
    ),
    { numRuns: propertyRuns(50) },
  );
});

test('listedMembers() refuses a list that is damaged, or that leads outside of the layer', async () => {
  await withDirectory(async (directory) => {
    const path = join(directory, 'members-0');
    await using list = await MemberList.create(directory, 'members-0');
    const numbers = { mode: 0o644, uid: 0, gid: 0, mtimeS: 0, mtimeNs: 0, size: 5000 };
    await list.add({ name: 'f', type: 'file', ...numbers, target: '', device: [0, 0], xattrs: new Map() }, 3);
    await list.flush();
    assert.equal((await listed(path, 5)).length, 1);
    await assert.rejects(listed(path, 4), { kind: 'corrupt', message: /outside of its content/ });
    const line = await readFile(path, 'utf8');
    for (const bad of [
      'x',
      '{}',
      line.slice(1),
      line.replace('"file"', '"socket"'),
      line.replace('5000', '-1'),
      '[]',
    ]) {
      await writeFile(path, bad);
      await assert.rejects(listed(path, 10), { kind: 'corrupt', message: /list of its members is damaged/ });
    }
  });
});
