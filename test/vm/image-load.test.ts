import assert from 'node:assert/strict';
import { link, mkdir, mkdtemp, open, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { type ErrorKind, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { openImageStore } from '#image/store/image-store.ts';
import type { ImageStore } from '#image/images.ts';
import { tarOf } from '#image/tar/tar-builder.ts';
import { readErofs, sha256, sysroot, traces } from '../images/image-tree.ts';
import { type WrittenImage, writeLayout } from '../images/layout-writer.ts';
import { whyNoVm } from './node.ts';

const minute = () => AbortSignal.timeout(60_000);
const hello = { layers: [[{ name: 'hello', content: 'hello' }], [{ name: 'more' }]] };
const helloTree = { '.': 'dir 0755', hello: 'file 0644 "hello"', more: 'file 0644 ""' };

await suite('load() of archives', { skip: await whyNoVm() }, () => {
  let directory: string;
  let store: ImageStore;
  let image: WrittenImage;
  let earlier: readonly string[];

  before(async () => {
    earlier = await traces();
    directory = await mkdtemp('/var/tmp/podvm-store-');
    await run('chmod', ['0711', directory]);
    store = await openImageStore({ directory: join(directory, 'images'), sysroot: await sysroot(), log: silentLog });
    const [written] = await writeLayout(join(directory, 'hello'), [{ ...hello, name: 'shop/hello:1' }]);
    assert.ok(written);
    image = written;
  });
  after(async () => {
    await rm(directory, { recursive: true });
    assert.deepEqual(await traces(), earlier);
  });

  const skopeo = async (...args: readonly string[]) => await run('skopeo', ['copy', '--quiet', ...args]);
  const assertLoaded = async (path: string, references: readonly string[], name?: string) => {
    const [loaded, ...more] = await store.load(path, name, {}, minute());
    assert.deepEqual(more, []);
    assert.equal(loaded?.id, image.id);
    assert.deepEqual(loaded.references, references);
    await using held = await store.hold(references[0] ?? '', 'Never', minute());
    assert.deepEqual(await readErofs(held.rootfsPath), helloTree);
    await held[Symbol.asyncDispose]();
    await store.remove(image.id);
  };
  const assertRefused = async (path: string, kind: ErrorKind, message: RegExp, name?: string) => {
    await assert.rejects(store.load(path, name, {}, minute()), (error) => {
      assert.ok(error instanceof PodvmError, String(error));
      assert.match(error.message, message);
      assert.equal(error.kind, kind, error.message);
      return true;
    });
    assert.deepEqual(store.list(), []);
    assert.deepEqual(await readdir(join(directory, 'images/work')), []);
    assert.deepEqual(await readdir(join(directory, 'images/rootfs')), []);
  };

  test('refuses what is not an archive', async () => {
    await assertRefused('/no/such.tar', 'notFound', /there is no such file/);
    await assertRefused('/etc', 'invalid', /not a docker-archive, OCI archive or OCI layout/);
    await assertRefused('/etc/passwd', 'invalid', /not a docker-archive, OCI archive or OCI layout/);
    const other = join(directory, 'other.tar');
    await writeFile(other, tarOf([{ name: 'hello', content: 'hello' }]));
    await assertRefused(other, 'invalid', /not a docker-archive, OCI archive or OCI layout/);
    const broken = join(directory, 'broken.tar');
    await writeFile(broken, tarOf([{ name: 'manifest.json', content: '[{"Config":"../../etc/shadow","Layers":[]}]' }]));
    await assertRefused(broken, 'corrupt', /\.\.\/\.\.\/etc\/shadow, which its manifest names, is missing/);
    await writeFile(broken, tarOf([{ name: 'manifest.json', content: '{' }]));
    await assertRefused(broken, 'corrupt', /manifest\.json: it is not JSON/);
    await writeFile(broken, tarOf([{ name: 'manifest.json', type: 'symlink', target: '/etc/shadow' }]));
    await assertRefused(broken, 'invalid', /not a docker-archive/);
  });

  test('loads a directory with an OCI layout', async () => {
    await assertLoaded(image.layout, ['docker.io/shop/hello:1']);
    await assertLoaded(image.layout, ['docker.io/other/name:2'], 'other/name:2');
  });

  test('lets no user of this machine read an image, except those given a link to it', async () => {
    await store.load(image.layout, undefined, {}, minute());
    await using held = await store.hold('shop/hello:1', 'Never', minute());
    const asNobody = ['--reuid=65534', '--regid=65534', '--clear-groups', 'head', '-c1'];
    const read = async (path: string) => (await run('setpriv', [...asNobody, path], { okCodes: 'any' })).code;
    assert.equal(await read(held.rootfsPath), 1);
    const linked = join(directory, 'linked');
    await link(held.rootfsPath, linked);
    assert.equal(await read(linked), 0);
    await rm(linked);
    await held[Symbol.asyncDispose]();
    await store.remove(image.id);
  });

  test('loads an OCI archive', async () => {
    const path = join(directory, 'oci.tar');
    await run('tar', ['-cf', path, '-C', image.layout, '.']);
    await assertLoaded(path, ['docker.io/shop/hello:1']);
    const bySkopeo = join(directory, 'oci-skopeo.tar');
    await skopeo(`oci:${image.layout}`, `oci-archive:${bySkopeo}:shop/hello:3`);
    await assertLoaded(bySkopeo, ['docker.io/shop/hello:3']);
  });

  test('loads a docker-archive with several tags', async () => {
    const path = join(directory, 'docker.tar');
    const tags = ['--additional-tag', 'docker.io/shop/hello:stable', '--additional-tag', 'registry.example/hello:1.2'];
    await skopeo(...tags, `oci:${image.layout}`, `docker-archive:${path}:docker.io/shop/hello:1`);
    const [loaded] = await store.load(path, undefined, {}, minute());
    assert.deepEqual(loaded?.references.toSorted(), [
      'docker.io/shop/hello:1',
      'docker.io/shop/hello:stable',
      'registry.example/hello:1.2',
    ]);
    await using held = await store.hold('shop/hello:stable', 'Never', minute());
    assert.deepEqual(await readErofs(held.rootfsPath), helloTree);
    await held[Symbol.asyncDispose]();
    await store.remove('registry.example/hello:1.2');
  });

  test('loads all images of an archive, each by its name, and none without a valid one', async () => {
    const several = join(directory, 'several');
    const second = { layers: [[{ name: 'second' }]], name: 'second:1', compression: 'zstd' as const };
    const [, written] = await writeLayout(several, [{ ...hello, name: 'first:1' }, second]);
    await assertRefused(several, 'invalid', /it has 2 images, and one name was given/, 'one:1');
    const loaded = await store.load(several, undefined, {}, minute());
    assert.deepEqual(
      loaded.map(({ id, references }) => [id, references]),
      [
        [image.id, ['docker.io/library/first:1']],
        [written?.id, ['docker.io/library/second:1']],
      ],
    );
    for (const { id } of loaded) await store.remove(id);
    await writeLayout(join(directory, 'nameless'), [hello]);
    await assertRefused(join(directory, 'nameless'), 'invalid', /an image in it has no name/);
    await writeLayout(join(directory, 'misnamed'), [{ ...hello, name: 'UPPER/../x' }]);
    await assertRefused(join(directory, 'misnamed'), 'invalid', /Cannot use image reference/);
  });

  test('chooses the matching platform in a layout and in a docker-archive', async () => {
    const layout = join(directory, 'platforms');
    const arm = { layers: [[{ name: 'arm' }]], architecture: 'arm64' };
    for (const named of [{ name: 'shop/both:1' }, {}]) {
      const [, written] = await writeLayout(layout, [
        { ...arm, ...named },
        { ...hello, ...named },
      ]);
      assert.equal(written?.id, image.id);
      await assertLoaded(layout, ['docker.io/shop/both:1'], 'name' in named ? undefined : 'shop/both:1');
      await rm(layout, { recursive: true });
    }
    const [other] = await writeLayout(layout, [{ ...arm, name: 'shop/arm:1' }]);
    await assertRefused(layout, 'unsupported', /shop\/arm:1: it has no linux\/amd64 image, only linux\/arm64/);

    const files = await Promise.all(
      [other?.id, image.id].map(async (id = '') => ({
        name: `${id}.json`,
        content: await readFile(join(id === image.id ? image.layout : layout, 'blobs', id.replace(':', '/'))),
      })),
    );
    const layers = hello.layers.map((members, at) => ({ name: `${at}.tar`, content: tarOf(members) }));
    const manifest = [
      { Config: files[0]?.name, RepoTags: ['shop/hello:1'], Layers: ['0.tar'] },
      { Config: files[1]?.name, RepoTags: ['shop/hello:1'], Layers: ['0.tar', '1.tar'] },
    ];
    const path = join(directory, 'platforms.tar');
    await writeFile(path, tarOf([{ name: 'manifest.json', content: JSON.stringify(manifest) }, ...files, ...layers]));
    await assertLoaded(path, ['docker.io/shop/hello:1']);
  });

  test('refuses a mere tag as a name, and asks for a name', async () => {
    const path = join(directory, 'tagged.tar');
    await skopeo(`oci:${image.layout}`, `oci-archive:${path}:2.1`);
    await assertRefused(path, 'invalid', /an image in it has only the tag 2\.1, and no name$/);
    await assertLoaded(path, ['docker.io/shop/hello:2.1'], 'shop/hello:2.1');
  });

  test('adds names, removes them one by one, and removes the image with the last or by id', async () => {
    await store.load(image.layout, 'shop/hello:1', {}, minute());
    await store.tag('shop/hello:1', 'other');
    assert.deepEqual((await store.tag(image.id, 'shop/hello:2')).references, [
      'docker.io/shop/hello:1',
      'docker.io/library/other:latest',
      'docker.io/shop/hello:2',
    ]);
    await assert.rejects(store.tag('nothing', 'other'), { kind: 'notFound' });
    await assert.rejects(store.tag('other', `other@${image.id}`), {
      kind: 'invalid',
      message: /a digest is not a tag/,
    });
    await assert.rejects(store.tag('other', image.id), { kind: 'invalid' });
    assert.deepEqual(await store.untag('shop/hello:1'), { untagged: ['docker.io/shop/hello:1'] });
    await assert.rejects(store.untag('shop/hello:1'), { kind: 'notFound' });

    // While the image is held, its names can be removed, except the last one.
    const held = await store.hold('other', 'Never', minute());
    assert.deepEqual(await store.untag('other'), { untagged: ['docker.io/library/other:latest'] });
    for (const last of ['shop/hello:2', image.id]) await assert.rejects(store.untag(last), { kind: 'busy' });
    await held[Symbol.asyncDispose]();
    assert.deepEqual(store.get('shop/hello:2')?.references, ['docker.io/shop/hello:2']);
    const removed = { untagged: ['docker.io/shop/hello:2'], removed: image.id };
    assert.deepEqual(await store.untag('shop/hello:2'), removed);
    assert.deepEqual(await readdir(join(directory, 'images/rootfs')), []);

    // A tag that moves leaves its image without a name, found by its id.
    const [second] = await writeLayout(join(directory, 'second'), [{ layers: [[{ name: 'second' }]], name: 'app:1' }]);
    await store.load(image.layout, 'app:1', {}, minute());
    const [loaded] = await store.load(join(directory, 'second'), undefined, {}, minute());
    assert.deepEqual(loaded?.names, ['docker.io/library/app:1']);
    assert.deepEqual(store.get(image.id)?.references, []);
    await store.tag(second?.id ?? '', 'app:2');
    assert.deepEqual(await store.untag(second?.id.slice(7, 19) ?? ''), {
      untagged: ['docker.io/library/app:1', 'docker.io/library/app:2'],
      removed: second?.id,
    });
    assert.deepEqual(await store.untag(image.id), { untagged: [], removed: image.id });
    assert.deepEqual(store.list(), []);
  });

  test('reads an archive with links as layers, as older versions of docker save wrote them', async () => {
    const path = join(directory, 'old.tar');
    const layer = tarOf([{ name: 'hello', content: 'hello' }]);
    const config = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [sha256(layer), sha256(layer)] },
    });
    const manifest = [{ Config: 'c.json', RepoTags: ['old:1'], Layers: ['one/layer.tar', 'two/layer.tar'] }];
    await writeFile(
      path,
      tarOf([
        { name: 'two/layer.tar', type: 'symlink', target: '../one/layer.tar' },
        { name: 'one/layer.tar', content: layer },
        { name: 'c.json', content: config },
        { name: 'manifest.json', content: JSON.stringify(manifest) },
      ]),
    );
    const [loaded] = await store.load(path, undefined, {}, minute());
    await using held = await store.hold('old:1', 'Never', minute());
    assert.deepEqual(await readErofs(held.rootfsPath), { '.': 'dir 0755', hello: 'file 0644 "hello"' });
    await held[Symbol.asyncDispose]();
    await store.remove(loaded?.id ?? '');
  });

  test('checks every document of a layout against its digest, and follows no link out of it', async () => {
    const blob = (layout: string, digest: string) => join(layout, 'blobs', digest.replace(':', '/'));
    const damage = async (name: string, change: (written: WrittenImage) => Promise<void>) => {
      const layout = join(directory, name);
      const [written] = await writeLayout(layout, [{ ...hello, name: 'damaged:1' }]);
      assert.ok(written);
      await change(written);
      return layout;
    };
    const config = await damage('config', async ({ layout, id }) => {
      const path = blob(layout, id);
      await writeFile(path, (await readFile(path, 'utf8')).replace('sh', 'no'));
    });
    await assertRefused(config, 'corrupt', /digest mismatch: expected sha256:[0-9a-f]{64}, got sha256:[0-9a-f]{64}/);
    const missing = await damage(
      'missing',
      async ({ layout, manifestDigest }) => await rm(blob(layout, manifestDigest)),
    );
    await assertRefused(missing, 'corrupt', /a part of it cannot be opened/);
    const linked = await damage('linked', async ({ layout, manifestDigest }) => {
      await rm(blob(layout, manifestDigest));
      await symlink('/etc/passwd', blob(layout, manifestDigest));
    });
    await assertRefused(linked, 'corrupt', /a part of it cannot be opened/);
    const cut = await damage('cut', async ({ layout, layerDigests }) => {
      await truncate(blob(layout, layerDigests[1] ?? ''), 20);
    });
    await assertRefused(cut, 'corrupt', /Cannot use layer 2 of the image: it is damaged or truncated/);
    const pipe = await damage('pipe', async ({ layout, layerDigests }) => {
      await rm(blob(layout, layerDigests[1] ?? ''));
      await run('mkfifo', [blob(layout, layerDigests[1] ?? '')]);
    });
    await assertRefused(pipe, 'corrupt', /Cannot use layer 2 of the image: it is not a regular file/);
    const huge = await damage(
      'huge',
      async ({ layout }) => await truncate(join(layout, 'index.json'), 5 * 1024 * 1024),
    );
    await assertRefused(huge, 'corrupt', /a document has more than 4194304 bytes/);
  });

  test('keeps no image and no name whose record cannot be written', async () => {
    const index = join(directory, 'images/index.json');
    await store.load(image.layout, 'kept:1', {}, minute());
    const [other] = await writeLayout(join(directory, 'unwritten'), [{ layers: [[{ name: 'x' }]], name: 'kept:1' }]);
    await rm(index);
    await mkdir(index);
    const failing = [
      () => store.load(other?.layout ?? '', undefined, {}, minute()),
      () => store.tag('kept:1', 'kept:2'),
    ];
    for (const attempt of failing) {
      await assert.rejects(attempt(), { code: 'EISDIR' });
      assert.deepEqual(
        store.list().map(({ id, references }) => [id, references]),
        [[image.id, ['docker.io/library/kept:1']]],
      );
    }
    await rm(index, { recursive: true });
    await store.remove('kept:1');
    await rm(index);
    await mkdir(index);
    await assert.rejects(store.load(image.layout, undefined, {}, minute()), { code: 'EISDIR' });
    assert.deepEqual(store.list(), []);
    assert.deepEqual(await readdir(join(directory, 'images/rootfs')), []);
    await rm(index, { recursive: true });
  });

  test('makes the base image on demand under every policy, and no other image', async () => {
    for (const policy of ['Never', 'Always', 'IfNotPresent'] as const) {
      const held = await store.hold('localhost/podvm/base', policy, minute());
      assert.equal((await readErofs(held.rootfsPath))['bin/sh'], '-> /bin/busybox');
      await assert.rejects(store.remove(held.id), { kind: 'busy' });
      await held[Symbol.asyncDispose]();
      if (policy !== 'Never') await store.remove(held.id); // `Always` finds it here
    }
    await assert.rejects(store.hold('localhost/podvm/other', 'Never', minute()), { kind: 'notFound' });
  });

  test('opens after a crash: removes unfinished work, and files without a record', async () => {
    await store.load(image.layout, undefined, {}, minute());
    const images = join(directory, 'images');
    await mkdir(join(images, 'work/image-left'), { recursive: true });
    await writeFile(join(images, 'rootfs/left.erofs'), 'x');
    const options = { directory: images, sysroot: await sysroot(), log: silentLog };
    const again = await openImageStore(options);
    assert.deepEqual(
      again.list().map(({ id }) => id),
      [image.id],
    );
    assert.deepEqual(await readdir(join(images, 'work')), []);
    assert.deepEqual(await readdir(join(images, 'rootfs')), [`${image.id.replace('sha256:', '')}.erofs`]);
  });

  test('reports that a damaged loaded image must be loaded again, keeps its names, and accepts it then', async () => {
    const images = join(directory, 'images');
    const large = [{ name: 'large', content: Buffer.alloc(50_000, 'x') }];
    const [written] = await writeLayout(join(directory, 'large'), [{ layers: [large] }]);
    assert.ok(written);
    const [loaded] = await store.load(written.layout, 'kept:1', {}, minute());
    const path = join(images, 'rootfs', `${written.id.replace('sha256:', '')}.erofs`);
    const damages: readonly [string, () => Promise<void>, RegExp][] = [
      ['gone', async () => await rm(path), /its file is gone/],
      ['cut short', async () => await truncate(path, 100), /has 100 bytes instead of \d+/],
      [
        'without superblock',
        async () => await overwrite(path, 1024, Buffer.alloc(128)),
        /first block differs from what was written/,
      ],
      ['one byte', async () => await overwrite(path, 9000, Buffer.from('y')), /content differs from what was written/],
    ];
    for (const [what, damage, reason] of damages) {
      await damage();
      for (const policy of ['IfNotPresent', 'Never'] as const) {
        await assert.rejects(store.hold('kept:1', policy, minute()), (error) => {
          assert.ok(error instanceof PodvmError && error.kind === 'corrupt', `${what}: ${String(error)}`);
          assert.match(error.message, /Cannot use image kept:1: it is damaged/);
          assert.match(error.message, reason);
          assert.match(error.fix ?? '', /podvm image load/);
          return true;
        });
      }
      await writeFile(join(images, 'index.json'), '{"version":');
      const again = await openImageStore({ directory: images, sysroot: await sysroot(), log: silentLog });
      assert.equal(again.get('kept:1')?.id, loaded?.id, `${what}: it is lost`);
      const [mended] = await store.load(written.layout, 'other:1', {}, minute());
      assert.deepEqual(mended?.references.toSorted(), ['docker.io/library/kept:1', 'docker.io/library/other:1']);
      await using held = await store.hold('kept:1', 'Never', minute());
      assert.match((await readErofs(held.rootfsPath))['large'] ?? '', /^file 0644 50000 bytes/);
      await held[Symbol.asyncDispose]();
    }
    await store.remove(written.id);
  });

  test('makes the base image once more when its file is damaged, under every policy', async () => {
    await using held = await store.hold('localhost/podvm/base', 'Never', minute());
    await truncate(held.rootfsPath, 0);
    await using again = await store.hold('localhost/podvm/base', 'Never', minute());
    assert.equal((await readErofs(again.rootfsPath))['bin/sh'], '-> /bin/busybox');
    assert.equal(await again.findDamage(minute()), undefined);
    await truncate(again.rootfsPath, 0);
    assert.match((await again.findDamage(minute())) ?? '', /has 0 bytes/);
  });
});

/** Writes into the file in place. */
async function overwrite(path: string, at: number, bytes: Buffer): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, at);
}
