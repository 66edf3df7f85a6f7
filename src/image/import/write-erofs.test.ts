import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { ContentFile, rootfsFile } from './content-file.ts';
import { type Directory, LayerTree, type Leaf } from './layer-tree.ts';
import { imageLimits } from '../limits.ts';
import type { TarMember } from '../tar/tar-reader.ts';
import { readErofsFile } from '../testing/read-erofs.ts';
import { hasInlineEnd, writeErofs } from './write-erofs.ts';
import { propertyRuns } from '../../../test/property-runs.ts';

const fault = (reason: string) => new PodvmError('corrupt', reason);

interface Step extends Pick<TarMember, 'name' | 'type' | 'target' | 'xattrs'> {
  readonly content: string;
}

const one = (name: string, more: Partial<Step> = {}): Step => ({
  ...{ name, type: 'file', target: '', content: '', xattrs: new Map() },
  ...more,
});

interface Made {
  /** Those of the image's own file, and behind them those of its layers. */
  readonly bytes: Buffer;
  /** Files of layers. */
  readonly layers: readonly Buffer[];
  /** What the tree has, in the words of `readErofsFile`. */
  readonly expected: Readonly<Record<string, string>>;
}

/** Writes layers as the importing process does; leaves out members that the tree refuses. Checks the digests. */
async function written(
  layers: readonly (readonly Step[])[],
  hasFile: (layer: number) => boolean = () => false,
): Promise<Made> {
  const work = await mkdtemp(join(tmpdir(), 'podvm-erofs-'));
  try {
    const tree = new LayerTree(imageLimits);
    const contents = new Map<Leaf, string>();
    const file = await ContentFile.create(work);
    for (const [layer, steps] of layers.entries()) {
      await file.startLayer(layer, hasFile(layer));
      for (const step of steps) await give(step, layer);
    }
    async function give({ content, ...rest }: Step, layer: number) {
      const bytes = Buffer.from(content, 'latin1');
      const numbers = { mode: 0o644 + layer, uid: layer * 70_000, gid: 2 ** 32 - 2, mtimeS: 2 ** 33, mtimeNs: 5 };
      const member = { ...rest, ...numbers, size: bytes.length, device: [259, 70_000] as const };
      let leaf: Leaf | undefined;
      try {
        leaf = tree.add(member, layer, fault);
      } catch (error) {
        if (!(error instanceof PodvmError)) throw error;
      }
      if (leaf === undefined || bytes.length === 0) return;
      contents.set(leaf, content);
      leaf.content = await file.add(cut(bytes), bytes.length, hasInlineEnd(leaf));
    }
    const made = await writeErofs(tree.root, file);
    await file[Symbol.asyncDispose]();
    for (const { members } of made.layers) await rm(join(work, members.file));
    const all = [...made.layers, { file: rootfsFile, digest: made.digest }];
    assert.deepEqual((await readdir(work)).sort(), all.map((each) => each.file).sort());
    const contentsOf = await Promise.all(all.map((each) => readFile(join(work, each.file))));
    for (const [at, { digest }] of all.entries())
      assert.equal(
        digest,
        `sha256:${createHash('sha256')
          .update(contentsOf[at] ?? '')
          .digest('hex')}`,
      );
    const own = contentsOf.pop() ?? Buffer.alloc(0);
    return { bytes: Buffer.concat([own, ...contentsOf]), layers: contentsOf, expected: describe(tree.root, contents) };
  } finally {
    await rm(work, { recursive: true });
  }
}

async function* cut(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 3000) yield bytes.subarray(at, at + 3000);
}

function describe(root: Directory, contents: ReadonlyMap<Leaf, string>): Record<string, string> {
  const found: Record<string, string> = {};
  const first = new Map<Leaf, string>();
  const links = new Map<Leaf, number>();
  const visit = (directory: Directory, path: string, use: (node: Directory | Leaf, path: string) => void) => {
    use(directory, path);
    for (const [name, { node }] of [...directory.entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const full = path === '.' ? name : `${path}/${name}`;
      if (node.kind === 'directory') visit(node, full, use);
      else use(node, full);
    }
  };
  visit(root, '.', (node) => node.kind === 'leaf' && links.set(node, (links.get(node) ?? 0) + 1));
  visit(root, '.', (node, path) => {
    const { mode, uid, gid, mtimeS, mtimeNs, xattrs } = node.kind === 'leaf' ? node.member : node.meta;
    const about = [mode, uid, gid, mtimeS, mtimeNs, ...xattrs].join(' ');
    if (node.kind === 'directory') {
      const inside = [...node.entries.values()].filter((entry) => entry.node.kind === 'directory').length;
      found[path] = `directory ${2 + inside} ${about}`;
      return;
    }
    const known = first.get(node);
    if (known === undefined) first.set(node, path);
    const { type, target, device } = node.member;
    const isDevice = type === 'char' || type === 'block';
    const content = type === 'symlink' ? target : (contents.get(node) ?? '');
    found[path] =
      known === undefined
        ? `${type} ${links.get(node)} ${about} ${isDevice ? device.join(':') : JSON.stringify(content)}`
        : `is ${known}`;
  });
  return found;
}

const matches = ({ bytes, expected }: Made) => {
  assert.deepEqual(readErofsFile(bytes), expected);
  return bytes;
};

test('writeErofs() stores what the tree has, and the same bytes for the same layers, for any layers', async () => {
  const part = fc.string({ unit: fc.constantFrom('a', 'b', '!', '\xfc', '~'), minLength: 1, maxLength: 3 });
  const path = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
  const sizes = fc.oneof(fc.constantFrom(0, 1, 4031, 4032, 4033, 4096, 8192), fc.integer({ min: 0, max: 20_000 }));
  const step: fc.Arbitrary<Step> = fc.record({
    name: fc.oneof(path, path, path, fc.constantFrom('a/.wh.b', '.wh.a', 'a/.wh..wh..opq')),
    type: fc.constantFrom('file', 'file', 'file', 'directory', 'symlink', 'link', 'char', 'block', 'fifo'),
    target: path,
    content: sizes.map((size) => 'x'.repeat(size)),
    xattrs: fc
      .dictionary(fc.constantFrom('user.a', 'security.b', 'trusted.c'), fc.string({ minLength: 1, maxLength: 3000 }))
      .map(
        (attributes) =>
          new Map(Object.entries(attributes).map(([name, value]) => [name, Buffer.from(value).toString('latin1')])),
      ),
  });
  const plain = ({ type, content, target, ...rest }: Step): Step => ({
    ...{ ...rest, type },
    content: type === 'file' ? content : '',
    target: type === 'symlink' || type === 'link' ? target : '',
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(step.map(plain), { maxLength: 12 }), { minLength: 1, maxLength: 4 }),
      fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
      async (layers, files) => {
        const hasFile = (layer: number) => files[layer] === true;
        assert.ok(matches(await written(layers, hasFile)).equals((await written(layers, hasFile)).bytes));
      },
    ),
    { numRuns: propertyRuns(100) },
  );
});

test('writeErofs() gives a layer a file that depends on nothing but the layer', async () => {
  const content = (letter: string, blocks: number) => ({ content: letter.repeat(blocks * 4096 + 100) });
  const layer = [one('a', content('a', 40)), one('b', content('b', 0)), one('link', { type: 'link', target: 'a' })];
  const first = await written([[one('c', content('c', 3))], layer, [one('.wh.a')]], (at) => at === 1);
  const second = await written([layer, [one('b', content('e', 2))]], (at) => at === 0);
  for (const made of [first, second]) matches(made);
  assert.deepEqual([first.layers.length, second.layers.length], [1, 1]);
  assert.equal(first.layers[0]?.length, 42 * 4096);
  assert.ok(first.layers[0].equals(second.layers[0] ?? Buffer.alloc(0)));
  const empty = await written([[one('d', { type: 'directory' })], layer], () => true);
  matches(empty);
  assert.equal(empty.layers.length, 1);
});

test('writeErofs() stores directories of many blocks, long targets and attributes of many blocks', async () => {
  const names = Array.from({ length: 3000 }, (_, at) => one(`d/${'n'.repeat(at % 200)}-${at}`));
  const large = new Map([
    ['user.large', 'v'.repeat(60_000)],
    ['system.posix_acl_access', 'acl'],
    ['system.posix_acl_default', 'acl'],
  ]);
  matches(
    await written([
      [
        ...names,
        one('d', { type: 'directory', xattrs: large }),
        one('f', { content: 'f'.repeat(5000), xattrs: large }),
      ],
      [
        one('long', { type: 'symlink', target: 't/'.repeat(2047) }),
        one('l', { type: 'symlink', target: 't/'.repeat(2000) }),
      ],
    ]),
  );
});

test('writeErofs() leaves out attributes that EROFS cannot store', async () => {
  const { bytes } = await written([
    [
      one('f', {
        xattrs: new Map([
          ['odd.name', 'x'],
          ['user.a', 'y'],
        ]),
      }),
    ],
  ]);
  assert.match(readErofsFile(bytes)['f'] ?? '', / user\.a,y ""$/);
});

test('writeErofs() makes no block of its own for small files', async () => {
  const bytes = matches(
    await written([Array.from({ length: 64 }, (_, at) => one(`small-${at}`, { content: 'x'.repeat(900) }))]),
  );
  assert.ok(bytes.length <= 4096 * (1 + 64 / 4 + 1), `${bytes.length} bytes`);
});

test('writeErofs() puts no content of files into the blocks that a mount reads', async () => {
  const bytes = matches(
    await written([[one('.env', { content: 'secret' }), one('large', { content: 'x'.repeat(5000) })]]),
  );
  const rootAt = 4096 * bytes.readUInt32LE(1024 + 40) + 32 * bytes.readUInt16LE(1024 + 14);
  const block = Math.floor(rootAt / 4096);
  assert.deepEqual(
    [0, block].filter((at) => /secret|xxx/.test(bytes.toString('latin1', at * 4096, (at + 1) * 4096))),
    [],
  );
  assert.match(bytes.toString('latin1'), /secret/);
});

test('writeErofs() keeps no room for content that upper layers replace, unless it is little', async () => {
  const content = (letter: string, blocks: number) => ({ content: letter.repeat(blocks * 4096 + 100) });
  const lower = [one('a', content('a', 40)), one('b', content('b', 300)), one('c', content('c', 40))];
  const all = matches(await written([lower, [one('d', content('d', 20))]]));
  const without = matches(await written([lower, [one('b', content('x', 20)), one('d', content('d', 20))]]));
  assert.equal(all.length - without.length, 280 * 4096);
  const little = matches(await written([lower, [one('a', content('x', 10)), one('d', content('d', 20))]]));
  const plain = matches(await written([[...lower.slice(1), one('a', content('x', 10)), one('d', content('d', 20))]]));
  assert.ok(little.length - plain.length <= plain.length / 8, `${little.length} bytes instead of ${plain.length}`);
});
