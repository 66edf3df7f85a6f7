import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, suite, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { tarOf, type TarSpec } from '#image/tar/tar-builder.ts';
import { contentOf, flattenedTree, traces, type Tree } from '../images/image-tree.ts';
import { whyNoVm } from './node.ts';

/** Layers, lowest first, flattened by the real tools and read back through a mount. */
const flat = async (...layers: readonly (readonly TarSpec[])[]): Promise<Tree> =>
  await flattenedTree(layers.map((entries) => ({ tar: tarOf(entries) })));

const root = { '.': 'dir 0755' };
const directory = (name: string, more: Partial<TarSpec> = {}): TarSpec => ({ name, type: 'directory', ...more });
const symlink = (name: string, target: string): TarSpec => ({ name, type: 'symlink', target });
const link = (name: string, target: string): TarSpec => ({ name, type: 'link', target });

const corrupt = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof PodvmError, String(error));
  assert.equal(error.kind, 'corrupt', error.message);
  assert.match(error.message, message);
  assert.match(error.message, /^Cannot use layer \d+ of the image: /);
  assert.ok(error.fix);
  return true;
};

await suite('flatten()', { skip: await whyNoVm() }, () => {
  let before: readonly string[] = [];
  test('starts from a clean machine', async () => {
    before = await traces();
  });
  after(async () => assert.deepEqual(await traces(), before));

  test('refuses names and links that lead outside of the image', async () => {
    await assert.rejects(
      flat([{ name: '../escape', content: 'x' }]),
      corrupt(/names \.\.\/escape, which leads outside/),
    );
    await assert.rejects(flat([{ name: 'a/../../escape', content: 'x' }]), corrupt(/leads outside/));
    await assert.rejects(flat([{ name: 'a' }], [link('b', '../../etc/shadow')]), corrupt(/layer 2 .* leads outside/));
    await assert.rejects(
      flat([link('b', '/etc/shadow')]),
      corrupt(/b is a hard link to \/etc\/shadow, which does not exist/),
    );
    await assert.rejects(flat([directory('a'), link('b', 'a')]), corrupt(/which is a directory/));
    await assert.rejects(flat([link('b', 'b')]), corrupt(/which does not exist/));
    await assert.rejects(flat([link('b', '.')]), corrupt(/which does not exist/));
    await assert.rejects(flat([{ name: '.', content: 'x' }]), corrupt(/its root is not a directory/));
    await assert.rejects(
      flat([symlink('a', 'b'), symlink('b', 'a'), { name: 'a/x' }]),
      corrupt(/behind a loop of links/),
    );
  });

  test('keeps files behind absolute and climbing symbolic links inside the image', async () => {
    assert.deepEqual(
      await flat(
        [symlink('out', '/etc'), symlink('up', '../../../../srv'), directory('etc')],
        [
          { name: 'out/passwd', content: 'ours' },
          { name: 'up/x', content: 'x' },
        ],
      ),
      {
        ...root,
        etc: 'dir 0755',
        'etc/passwd': 'file 0644 "ours"',
        out: '-> /etc',
        srv: 'dir 0755',
        'srv/x': 'file 0644 "x"',
        up: '-> ../../../../srv',
      },
    );
  });

  test('treats absolute names as names below the root', async () => {
    assert.deepEqual(await flat([{ name: '/etc//./motd', content: 'hi' }]), {
      ...root,
      etc: 'dir 0755',
      'etc/motd': 'file 0644 "hi"',
    });
  });

  test('gives the root and directories their own owner and mode, and modest ones to those no layer describes', async () => {
    assert.deepEqual(
      await flat(
        [directory('.', { mode: 0o700, uid: 7 }), directory('tmp', { mode: 0o1777 })],
        [{ name: 'tmp/a' }, { name: 'new/b' }],
      ),
      {
        '.': 'dir 0700 7:0',
        new: 'dir 0755',
        'new/b': 'file 0644 ""',
        tmp: 'dir 1777',
        'tmp/a': 'file 0644 ""',
      },
    );
  });

  test('applies whiteouts to lower layers only, wherever they stand in their layer', async () => {
    const lower = [
      { name: 'd/a', content: 'low' },
      { name: 'd/b', content: 'low' },
      { name: 'e', content: 'low' },
    ];
    const expected = { ...root, d: 'dir 0755', 'd/b': 'file 0644 "low"', e: 'file 0644 "new"' };
    assert.deepEqual(
      await flat(lower, [{ name: 'd/.wh.a' }, { name: '.wh.e' }, { name: 'e', content: 'new' }]),
      expected,
    );
    assert.deepEqual(
      await flat(lower, [{ name: 'e', content: 'new' }, { name: '.wh.e' }, { name: 'd/.wh.a' }]),
      expected,
    );
    assert.deepEqual(await flat(lower, [{ name: '.wh.d' }, { name: '.wh.nothing' }]), {
      ...root,
      e: 'file 0644 "low"',
    });
    const anew = { ...root, d: 'dir 0755', 'd/n': 'file 0644 ""', e: 'file 0644 "low"' };
    assert.deepEqual(await flat(lower, [{ name: '.wh.d' }, { name: 'd/n' }]), anew);
    assert.deepEqual(await flat(lower, [{ name: 'd/n' }, { name: '.wh.d' }]), anew);
  });

  test('empties opaque directories of what lower layers put there, the root too', async () => {
    const lower = [directory('d', { mode: 0o711 }), { name: 'd/a' }, { name: 'd/sub/b' }];
    const expected = { ...root, d: 'dir 0711', 'd/n': 'file 0644 ""' };
    assert.deepEqual(await flat(lower, [{ name: 'd/.wh..wh..opq' }, { name: 'd/n' }]), expected);
    assert.deepEqual(await flat(lower, [{ name: 'd/n' }, { name: 'd/.wh..wh..opq' }]), expected);
    assert.deepEqual(await flat(lower, [{ name: '.wh..wh..opq' }, { name: 'n' }]), { ...root, n: 'file 0644 ""' });
    assert.deepEqual(await flat(lower, [{ name: '.wh.d' }], [{ name: 'd/later' }]), {
      ...root,
      d: 'dir 0755',
      'd/later': 'file 0644 ""',
    });
  });

  test('replaces a file by a directory and back, and shows nothing of what was there', async () => {
    const file = { name: 'x', content: 'file' };
    const tree = [directory('x'), { name: 'x/inside', content: 'i' }];
    assert.deepEqual(await flat([file], tree), { ...root, x: 'dir 0755', 'x/inside': 'file 0644 "i"' });
    assert.deepEqual(await flat([file], tree, [file]), { ...root, x: 'file 0644 "file"' });
    assert.deepEqual(await flat([file], tree, [file], [directory('x')]), { ...root, x: 'dir 0755' });
    assert.deepEqual(await flat([directory('r'), symlink('x', 'r')], [directory('x', { mode: 0o700 })]), {
      ...root,
      r: 'dir 0755',
      x: 'dir 0700',
    });
  });

  test('keeps hard links within a layer and across layers, and parts them when one name is replaced', async () => {
    assert.deepEqual(
      await flat(
        [
          { name: 'a', content: 'one', mode: 0o4755 },
          link('b', 'a'),
          link('c', 'a'),
          symlink('s', 'a'),
          link('t', 's'),
        ],
        [{ name: 'a', content: 'two' }, link('d', 'c')],
        [{ name: '.wh.b' }],
      ),
      { ...root, a: 'file 0644 "two"', c: 'file 4755 "one"', d: 'is c', s: '-> a', t: 'is s' },
    );
  });

  test('keeps extended attributes, among them capabilities, with every byte', async () => {
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    assert.deepEqual(
      await flat([
        { name: 'ping', content: 'x', xattrs: { 'security.capability': capability, 'user.note': 'a=b\nc' } },
        directory('d', { xattrs: { 'user.dir': 'yes' } }),
      ]),
      {
        ...root,
        d: 'dir 0755 {user.dir=0x796573}',
        ping: `file 0644 "x" {security.capability=0x${capability.toString('hex')}, user.note=0x613d620a63}`,
      },
    );
  });

  test('keeps owners, setuid bits, devices and pipes', async () => {
    assert.deepEqual(
      await flat([
        { name: 'su', mode: 0o6755, uid: 1, gid: 3_000_000_000 },
        { name: 'null', type: 'char', device: [1, 3], mode: 0o666 },
        { name: 'disk', type: 'block', device: [259, 70_000] },
        { name: 'pipe', type: 'fifo', uid: 1000, gid: 1000 },
        { name: 'contiguous', type: 'contiguous', content: 'c' },
      ]),
      {
        ...root,
        contiguous: 'file 0644 "c"',
        disk: 'block 259:70000 0644',
        null: 'char 1:3 0666',
        pipe: 'fifo 0644 1000:1000',
        su: 'file 6755 1:3000000000 ""',
      },
    );
  });

  test('keeps directories, attributes and targets that need many blocks, and files of every length', async () => {
    const names = Array.from({ length: 2000 }, (_, at) => `many/${'n'.repeat(at % 190)}-${at}`);
    const files = [1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 300_000].map((bytes) => ({
      name: `of-${bytes}`,
      content: randomBytes(bytes),
    }));
    const large = 'v'.repeat(60_000);
    const target = 't/'.repeat(2047);
    const tree = await flat(
      names.map((name) => ({ name })),
      [...files, { name: 'large', content: 'x'.repeat(5000), xattrs: { 'user.large': large } }, symlink('s', target)],
    );
    assert.deepEqual(tree, {
      ...root,
      ...Object.fromEntries(files.map(({ name, content }) => [name, `file 0644 ${contentOf(content)}`])),
      large: `file 0644 ${contentOf(Buffer.from('x'.repeat(5000)))} {user.large=0x${Buffer.from(large).toString('hex')}}`,
      many: 'dir 0755',
      ...Object.fromEntries(names.map((name) => [name, 'file 0644 ""'])),
      s: `-> ${target}`,
    });
  });

  for (const dialect of ['pax', 'gnu'] as const) {
    test(`reads long names and targets as ${dialect} writes them`, async () => {
      const name = `${'d'.repeat(200)}/${'ü'.repeat(120)}`;
      const target = 't/'.repeat(300);
      assert.deepEqual(
        await flat([
          { name, content: 'far', dialect },
          { ...symlink('s', target), dialect },
          { ...link('h', name), dialect },
        ]),
        {
          ...root,
          [name.slice(0, 200)]: 'dir 0755',
          [name]: 'file 0644 "far"',
          h: `is ${name}`,
          s: `-> ${target}`,
        },
      );
    });
  }
});
