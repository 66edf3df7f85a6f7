import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import { type ImageStoreOptions, openImageStore } from '#image/store/image-store.ts';
import { contentOf, readImage, sha256, sysroot, traces } from '../images/image-tree.ts';
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

/** What a record says of the source of a layer, and the index of all records. */
interface Source {
  diffId: string;
  members: string;
}
interface Index {
  readonly images: readonly { readonly layers: readonly { readonly source: Source }[] }[];
}
const hexOf = (digest: string) => digest.replace('sha256:', '');

await suite('pull() of images of one repository', { skip: await whyNoVm() }, () => {
  let directory: string;
  let registry: Registry;
  let options: ImageStoreOptions;
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
    options = { directory: join(directory, 'images'), sysroot: await sysroot(), log: silentLog, containersDirectory };
    store = await openImageStore(options);
    for (const [name, layers] of [
      ['shop/app:1', [base, [{ name: 'version', content: '1' }]]],
      [
        'shop/app:2',
        [[{ name: 'first', content: 'f' }], base, [{ name: 'version', content: '2' }, { name: '.wh.gone' }]],
      ],
      ['shop/app:3', [base, [{ name: 'version', content: '3' }]]],
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

  for (const [what, spoil] of [
    [
      'another digest of it than the image has',
      async (_: string, source: Source) => void (source.diffId = `sha256:${'0'.repeat(64)}`),
    ],
    [
      'content that it does not have',
      async (lists: string, source: Source) => {
        const list = (await readFile(join(lists, hexOf(source.members)), 'utf8')).replace(/,0\]\n/, ',999]\n');
        source.members = sha256(Buffer.from(list));
        await writeFile(join(lists, hexOf(source.members)), list);
      },
    ],
  ] as const)
    test(`fetches it when the process that read the other image said ${what}`, async () => {
      const place = join(directory, `lying ${what.slice(0, 7)}`);
      const lying = { ...options, directory: place };
      {
        const first = await openImageStore(lying);
        await first.pull(`${registry.name}/shop/app:1`, {}, minute());
      }
      const index = JSON.parse(await readFile(join(place, 'index.json'), 'utf8')) as Index;
      await spoil(join(place, 'members'), index.images[0]?.layers[0]?.source ?? assert.fail('no layer'));
      await writeFile(join(place, 'index.json'), JSON.stringify(index));
      const opened = await openImageStore(lying);
      const said: string[] = [];
      const tells = { onProgress: (message: string) => said.push(message) };
      await opened.pull(`${registry.name}/shop/app:2`, tells, minute());
      const fetched = said.flatMap((message) => /\((.*) layers/.exec(message)?.[1] ?? []);
      assert.deepEqual(fetched, ['2 of 3', '3']);
      {
        await using held = await opened.hold(`${registry.name}/shop/app:2`, 'Never', minute());
        assert.deepEqual(await readImage(held), second);
      }
      // From then on, what the newer image says of it is used.
      await opened.remove((await opened.pull(`${registry.name}/shop/app:3`, tells, minute())).id);
      assert.match(said.join('\n'), /app:3 \(1 of 2 layers/);
      for (const { id } of opened.list()) await opened.remove(id);
      for (const inside of ['layers', 'members', 'rootfs', 'work'])
        assert.deepEqual(await readdir(join(place, inside)), []);
    });

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
