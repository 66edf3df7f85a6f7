import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReference } from '#base/image-reference.ts';
import { imageLimits } from '../limits.ts';
import { digestOf } from '../oci.ts';
import { KnownDocuments } from './known-documents.ts';
import { resolveImage } from './resolve-image.ts';

const platform = { os: 'linux', architecture: 'amd64' };
const processor = { architecture: 'amd64', level: 1 };
const blob = (text: string) => ({ mediaType: '', digest: digestOf(text), size: text.length });

/** An index with an image of that config, on a registry that counts what is asked for. */
function openRegistry({ entry = {}, padding = '' }: { entry?: object; padding?: string }) {
  const config = JSON.stringify(platform);
  const manifest = JSON.stringify({ config: { ...blob(config), padding }, layers: [] });
  const index = JSON.stringify({ manifests: [{ ...blob(manifest), ...entry }] });
  const asked: string[] = [];
  const known = new KnownDocuments();
  const inspectRaw = async (name: string) => {
    asked.push(name);
    return name.endsWith(digestOf(manifest)) ? manifest : index;
  };
  const inspectConfig = async (name: string) => {
    asked.push(`config of ${name}`);
    return config;
  };
  return {
    manifest,
    async askedFor(name: string): Promise<readonly string[]> {
      asked.length = 0;
      const reader = { processor, limits: imageLimits, known };
      const skopeo = { inspectRaw, inspectConfig };
      const { pinned, names } = await resolveImage(parseReference(name), skopeo, reader, new AbortController().signal);
      assert.equal(pinned, `${name.replace(/:1$/, '')}@${digestOf(manifest)}`);
      assert.equal(names.digests.length, 2);
      return [...asked];
    },
  };
}

test('resolveImage() asks again for what the reference means, and for no other document of the repository', async () => {
  for (const entry of [{ platform }, {}]) {
    const registry = openRegistry({ entry });
    const manifest = `shop.example/app@${digestOf(registry.manifest)}`;
    const others = [manifest, ...('platform' in entry ? [] : [`config of ${manifest}`])];
    assert.deepEqual(await registry.askedFor('shop.example/app:1'), ['shop.example/app:1', ...others]);
    assert.deepEqual(await registry.askedFor('shop.example/app:1'), ['shop.example/app:1']);
    assert.equal((await registry.askedFor('shop.example/other:1')).length, 1 + others.length);
  }
});

test('resolveImage() asks again for documents that are too large to be kept', async () => {
  const registry = openRegistry({ entry: { platform }, padding: 'x'.repeat(40_000) });
  for (const _ of ['once', 'again']) assert.equal((await registry.askedFor('shop.example/app:1')).length, 2);
});

test('KnownDocuments keep the last ones', () => {
  const known = new KnownDocuments();
  for (let at = 0; at < 1000; at += 1) known.add(`${at}`, `text ${at}`);
  assert.equal(known.get('999'), 'text 999');
  assert.equal(known.get('0'), undefined);
  assert.equal(Array.from({ length: 1000 }, (_, at) => known.get(`${at}`)).filter((text) => text).length, 128);
});
