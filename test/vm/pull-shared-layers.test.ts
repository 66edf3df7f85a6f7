import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { contentOf, readImage, sysroot, traces } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { type Registry, startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';

const minute = () => AbortSignal.timeout(60_000);
const large = randomBytes(5 * 1024 ** 2 + 9);
const base = [
  { name: 'large', content: large, mode: 0o640, uid: 5 },
  { name: 'gone', content: 'x' },
  { name: 'again', type: 'link' as const, target: 'large' },
];
const common = { again: `file 0640 5:0 ${contentOf(large)}`, large: 'is again' };

await suite('pull() of images of one repository', { skip: await whyNoVm() }, () => {
  let directory: string;
  let registry: Registry;
  let store: ImageStore;
  let earlier: readonly string[];
  /** The blob of the base in the registry. */
  let blob: string;

  before(async () => {
    earlier = await traces();
    directory = await mkdtemp('/var/tmp/podvm-store-');
    await chmod(directory, 0o711);
    const containersDirectory = join(directory, 'containers');
    await mkdir(containersDirectory);
    await writeFile(join(containersDirectory, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
    await writeFile(join(containersDirectory, 'registries.conf'), '');
    registry = await startRegistry();
    const images = { directory: join(directory, 'images'), sysroot: await sysroot(), log: silentLog };
    store = await openImageStore({ ...images, containersDirectory });
    for (const [name, layers] of [
      ['shop/app:1', [base, [{ name: 'version', content: '1' }]]],
      [
        'shop/app:2',
        [[{ name: 'first', content: 'f' }], base, [{ name: 'version', content: '2' }, { name: '.wh.gone' }]],
      ],
      ['shop/other:1', [base]],
    ] as const) {
      const [image = assert.fail('no image')] = await writeLayout(join(directory, name.replaceAll(/\W/g, '-')), [
        { layers },
      ]);
      await registry.push(image.layout, name);
      const hex = image.layerDigests[layers.indexOf(base)]?.replace('sha256:', '') ?? '';
      blob = join(registry.storage, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
    }
  });
  after(async () => {
    await registry[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
    assert.deepEqual(await traces(), earlier);
  });

  const treeOf = async (name: string) => {
    await using held = await store.hold(`${registry.name}/${name}`, 'IfNotPresent', minute());
    return await readImage(held);
  };
  const second = { '.': 'dir 0755', ...common, first: 'file 0644 "f"', version: 'file 0644 "2"' };
  const layerFiles = async () =>
    (await readdir(join(directory, 'images/layers'))).map((name) => join(directory, 'images/layers', name));

  test('does not fetch a layer that another of them has', async () => {
    const first = { '.': 'dir 0755', ...common, gone: 'file 0644 "x"', version: 'file 0644 "1"' };
    assert.deepEqual(await treeOf('shop/app:1'), first);
    await rename(blob, `${blob}.away`);
    const said: string[] = [];
    await store.pull(`${registry.name}/shop/app:2`, { onProgress: (message) => said.push(message) }, minute());
    assert.match(said.join('\n'), /\(2 of 3 layers, 1 MB\)/);
    assert.deepEqual(await treeOf('shop/app:2'), second);
    assert.equal((await layerFiles()).length, 1);
    await store.remove(`${registry.name}/shop/app:1`);
    assert.deepEqual(await treeOf('shop/app:2'), second);
  });

  test('fetches it for another repository, whose readers need not be the same', async () => {
    await assert.rejects(store.pull(`${registry.name}/shop/other:1`, {}, minute()));
    assert.equal(store.get(`${registry.name}/shop/other:1`), undefined);
  });

  test('fetches it to mend an image', async () => {
    const [file = assert.fail('none')] = await layerFiles();
    const bytes = await readFile(file);
    await writeFile(`${file}.new`, bytes.fill(0xff, 4096, 4097));
    await rename(`${file}.new`, file);
    await assert.rejects(treeOf('shop/app:2'), /the content of a layer differs.*cannot be fetched again/s);
    await copyFile(`${blob}.away`, blob);
    assert.deepEqual(await treeOf('shop/app:2'), second);
    await treeOf('shop/other:1');
    assert.equal((await layerFiles()).length, 1);
    for (const { id } of store.list()) await store.remove(id);
    for (const inside of ['layers', 'members', 'rootfs', 'work'])
      assert.deepEqual(await readdir(join(directory, 'images', inside)), []);
  });
});
