import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { ErrorKind } from '#base/errors.ts';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { entryBytes, tarOf } from '#image/tar/tar-builder.ts';
import { compress, contentOf, flattenedDigest, flattenedTree, sha256, traces } from '../images/image-tree.ts';
import { whyNoVm } from './node.ts';

const root = { '.': 'dir 0755' };
const hello = tarOf([{ name: 'hello', content: 'hello' }]);
const helloTree = { ...root, hello: 'file 0644 "hello"' };
const KiB = 1024;
const MiB = 1024 * KiB;

const fails = (kind: ErrorKind, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof PodvmError, String(error));
  assert.match(error.message, message);
  assert.equal(error.kind, kind, error.message);
  return true;
};

await suite('flatten() of damaged, hostile and unusual layers', { skip: await whyNoVm() }, () => {
  let before: readonly string[] = [];
  test('starts from a clean machine', async () => {
    before = await traces();
  });
  after(async () => assert.deepEqual(await traces(), before));

  test('refuses a layer that is truncated at any place', async () => {
    const file = entryBytes({ name: 'big', content: 'x'.repeat(5000) });
    for (const cut of [100, 512 + 100, 512 * 3]) {
      await assert.rejects(flattenedTree([{ tar: file.subarray(0, cut) }]), fails('corrupt', /layer 1 .*truncated/));
    }
    const blob = compress(hello, 'gzip');
    const cutBlob = blob.subarray(0, blob.length - 10);
    await assert.rejects(
      flattenedTree([{ tar: hello }, { tar: hello, blob: cutBlob, compression: 'gzip' }]),
      fails('corrupt', /layer 2 of the image: it is damaged or truncated/),
    );
    const zstd = compress(hello, 'zstd');
    await assert.rejects(
      flattenedTree([{ tar: hello, blob: zstd.subarray(0, zstd.length - 10), compression: 'zstd' }]),
      fails('corrupt', /damaged or truncated/),
    );
  });

  test('refuses garbage as tar, as gzip and as zstd', async () => {
    const garbage = Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 7919) & 0xff));
    await assert.rejects(flattenedTree([{ tar: garbage }]), fails('corrupt', /layer 1/));
    for (const compression of ['gzip', 'zstd'] as const) {
      const blob = Buffer.concat([compress(hello, compression).subarray(0, 10), garbage]);
      const layer = { tar: hello, blob, compression };
      await assert.rejects(flattenedTree([layer]), fails('corrupt', /damaged or truncated/));
    }
    const damaged = Buffer.from(hello);
    damaged[3] = 0x7a;
    await assert.rejects(flattenedTree([{ tar: damaged }]), fails('corrupt', /the checksum of a header is wrong/));
    const unknown = tarOf([{ name: 'hello', type: 'unknown' }]);
    await assert.rejects(flattenedTree([{ tar: unknown }]), fails('corrupt', /hello is of the unknown type Q/));
  });

  test('refuses a layer whose content has another digest than the config says', async () => {
    const layer = { tar: hello, diffId: sha256(Buffer.from('other')) };
    await assert.rejects(
      flattenedTree([layer]),
      fails('corrupt', /digest mismatch: expected sha256:[0-9a-f]{64}, got sha256:[0-9a-f]{64}/),
    );
  });

  test('stops bombs: of gzip and zstd, of size, of files and of holes', async () => {
    const zeros = tarOf([{ name: 'zeros', content: Buffer.alloc(4 * MiB) }]);
    for (const compression of ['gzip', 'zstd'] as const) {
      await assert.rejects(
        flattenedTree([{ tar: zeros, compression }], { freeBytes: MiB }),
        fails('exhausted', /a layer is more than 100 times as large as its compressed data/),
      );
      assert.ok((await flattenedTree([{ tar: zeros, compression }], { freeBytes: 5 * MiB }))['zeros']);
    }
    const two = [{ tar: zeros }, { tar: zeros }];
    await assert.rejects(
      flattenedTree(two, { maxImageBytes: 7 * MiB }),
      fails('exhausted', /uncompressed it has more than 7340032 bytes/),
    );
    const many = { tar: tarOf(Array.from({ length: 100 }, (_, at) => ({ name: `f${at}` }))) };
    await assert.rejects(flattenedTree([many], { maxEntries: 99 }), fails('corrupt', /has more than 99 files/));
    assert.equal(Object.keys(await flattenedTree([many], { maxEntries: 100 })).length, 101);
    const holes = { tar: await tarByTool('--format=gnu', '1T') };
    await assert.rejects(flattenedTree([holes]), fails('exhausted', /more than 34359738368 bytes/));
  });

  test('refuses names, depths and attributes that no file system can hold', async () => {
    const deep = { name: 'd/'.repeat(1001) + 'x' };
    await assert.rejects(flattenedTree([{ tar: tarOf([deep]) }]), fails('corrupt', /nested more than 1000 deep/));
    const long = { name: 'n'.repeat(256) };
    await assert.rejects(flattenedTree([{ tar: tarOf([long]) }]), fails('corrupt', /the name n+\.\.\. is too long/));
    const attributes = { name: 'x', xattrs: { 'user.big': 'v'.repeat(65_537) } };
    await assert.rejects(flattenedTree([{ tar: tarOf([attributes]) }]), fails('corrupt', /extended attributes/));
    const extra = { name: 'x', pax: { comment: 'c'.repeat(MiB) } };
    await assert.rejects(flattenedTree([{ tar: tarOf([extra]) }]), fails('corrupt', /extended header has more than/));
  });

  test('holds the deepest directories and the longest attributes that are allowed', async () => {
    const deep = 'd/'.repeat(999) + 'x';
    const tree = await flattenedTree([
      { tar: tarOf([{ name: deep, content: 'deep', xattrs: { 'user.long': 'v'.repeat(4000) } }]) },
    ]);
    assert.match(tree[deep] ?? '', /^file 0644 "deep" \{user\.long=0x(?:76){4000}\}$/);
  });

  test('accepts no layers, empty layers, a tar without its end, and 127 layers', async () => {
    assert.deepEqual(await flattenedTree([]), root);
    const empty = { tar: tarOf([]), compression: 'gzip' } as const;
    assert.deepEqual(await flattenedTree([empty, { tar: Buffer.alloc(0) }, empty]), root);
    assert.deepEqual(await flattenedTree([{ tar: hello.subarray(0, 1024) }]), helloTree);
    const layers = Array.from({ length: 127 }, (_, at) => ({
      tar: tarOf([{ name: 'last', content: String(at) }, { name: `.wh.f${at - 1}` }, { name: `f${at}` }]),
      compression: 'gzip' as const,
    }));
    assert.deepEqual(await flattenedTree(layers), { ...root, f126: 'file 0644 ""', last: 'file 0644 "126"' });
  });

  test('reads gzip and zstd in several members, as chunked layers have them', async () => {
    const half = hello.length / 2;
    for (const compression of ['gzip', 'zstd'] as const) {
      const parts = [hello.subarray(0, half), hello.subarray(half)].map((part) => compress(part, compression));
      assert.deepEqual(await flattenedTree([{ tar: hello, blob: Buffer.concat(parts), compression }]), helloTree);
    }
    assert.deepEqual(
      await flattenedTree([{ tar: hello, blob: gzipSync(hello, { level: 0 }), compression: 'gzip' }]),
      helloTree,
    );
  });

  test('recognises the compression by the first bytes, whatever a copying tool added', async () => {
    const skippable = Buffer.from('502a4d180500000068656c6c6f', 'hex'); // pzstd begins with one
    const zstd = Buffer.concat([skippable, compress(hello, 'zstd'), skippable]);
    const blobs = [zstd, compress(zstd, 'gzip'), compress(compress(hello, 'gzip'), 'zstd')];
    for (const blob of blobs) assert.deepEqual(await flattenedTree([{ tar: hello, blob }]), helloTree);
    const likeZstd = tarOf([{ name: 'P*M\u0018hello', content: 'hello' }]);
    assert.deepEqual(await flattenedTree([{ tar: likeZstd }]), { ...root, 'P*M\u0018hello': 'file 0644 "hello"' });
    const bomb = compress(compress(Buffer.alloc(4 * MiB), 'zstd'), 'gzip');
    const layer = { tar: Buffer.alloc(4 * MiB), blob: bomb };
    await assert.rejects(flattenedTree([layer], { freeBytes: MiB }), fails('exhausted', /times as large/));
  });

  for (const format of ['gnu', 'posix']) {
    test(`fills the holes of sparse files as GNU tar writes them in its format ${format}`, async () => {
      const tar = await tarByTool(`--format=${format}`, '3M');
      assert.ok(tar.length < MiB, 'the archive itself is sparse');
      const sparse = Buffer.alloc(3 * MiB);
      for (let at = 0; at < 40; at += 1) sparse.write('data', at * 64 * KiB);
      assert.deepEqual(await flattenedTree([{ tar }]), { ...root, sparse: `file 0600 ${contentOf(sparse)}` });
    });
  }

  test('reads GNU tar’s archives of a real tree in every format', async () => {
    const expected = await flattenedTree([{ tar: await tarOfTree('gnu') }]);
    assert.ok(Object.keys(expected).length > 20);
    for (const format of ['posix', 'ustar', 'v7', 'oldgnu']) {
      assert.deepEqual(await flattenedTree([{ tar: await tarOfTree(format) }]), expected, format);
    }
  });

  test('makes the same bytes for the same content, however compressed', async () => {
    const tars = [hello, tarOf([{ name: 'a/b/c' }, { name: 'a/z', type: 'fifo' }])];
    const plain = await flattenedDigest(tars.map((tar) => ({ tar })));
    const gzipped = await flattenedDigest(tars.map((tar) => ({ tar, compression: 'gzip' as const })));
    assert.equal(plain, gzipped);
  });
});

/** A tar with one sparse file: 40 pieces of data and holes up to `size`. */
async function tarByTool(format: string, size: string): Promise<Buffer> {
  const directory = await mkdtemp('/var/tmp/podvm-flatten-');
  try {
    const pieces = `for i in $(seq 0 39); do printf data | dd of=sparse bs=64K seek=$i conv=notrunc status=none; done`;
    const pack = `tar --sparse ${format} --numeric-owner --owner=0 --group=0 --mode=0600 -cf out.tar sparse`;
    await run('sh', ['-euc', `truncate -s ${size} sparse; ${pieces}; ${pack}`], { cwd: directory });
    return await readFile(join(directory, 'out.tar'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** A real directory of every Debian, with links and directories. */
async function tarOfTree(format: string): Promise<Buffer> {
  const directory = await mkdtemp('/var/tmp/podvm-flatten-');
  try {
    await run('tar', [
      `--format=${format}`,
      '--mtime=@0',
      '-cf',
      join(directory, 'out.tar'),
      '-C',
      '/etc',
      'apt',
      'alternatives',
    ]);
    return await readFile(join(directory, 'out.tar'));
  } finally {
    await rm(directory, { recursive: true });
  }
}
