import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ErrorKind, PodvmError } from '#base/errors.ts';
import { chooseAmong, chooseImage } from './choose-image.ts';
import { imageLimits } from '../limits.ts';
import { type Descriptor, digestOf } from '../oci.ts';
import { propertyRuns } from '../../../test/property-runs.ts';

const oci = 'application/vnd.oci.image';
const types = { index: `${oci}.index.v1+json`, manifest: `${oci}.manifest.v1+json`, config: `${oci}.config.v1+json` };
const amd64 = { os: 'linux', architecture: 'amd64' };
const arm64 = { os: 'linux', architecture: 'arm64' };
const unknown = { os: 'unknown', architecture: 'unknown' };
const withVariant = (variant: string) => ({ ...amd64, variant });

/** Documents by digest, as in a registry, with a count of reads. */
class Shelf {
  readonly texts = new Map<string, string>();
  reads = 0;

  put(body: object, mediaType: string, more: object = {}): Descriptor {
    const text = JSON.stringify(body);
    const digest = digestOf(text);
    this.texts.set(digest, text);
    return { mediaType, digest, size: text.length, ...more };
  }

  /** An image whose config names a platform. Its index entry may name one as well. */
  image(word: string, said: object, platform?: object, more: object = {}): Descriptor {
    const config = this.put({ ...said, word }, types.config);
    return this.put({ config, layers: [] }, types.manifest, { ...(platform && { platform }), ...more });
  }

  index(manifests: readonly Descriptor[], more: object = {}): Descriptor {
    return this.put({ manifests }, types.index, more);
  }

  async choose(root: Descriptor, level = 1, limits = imageLimits) {
    const read = async (digest: string) => {
      this.reads += 1;
      return await Promise.resolve(this.texts.get(digest) ?? '');
    };
    const documents = { manifest: read, config: async (_manifest: string, digest: string) => await read(digest) };
    const request = { what: 'app:1', documents, processor: { architecture: 'amd64', level }, limits };
    return await chooseImage(this.texts.get(root.digest) ?? '', request);
  }

  async refused(root: Descriptor, kind: ErrorKind, message: RegExp, level = 1): Promise<void> {
    await assert.rejects(this.choose(root, level), (error) => {
      assert.ok(error instanceof PodvmError, String(error));
      assert.match(error.message, message);
      assert.equal(error.kind, kind, error.message);
      assert.ok(error.message.length < 2000 && error.fix !== undefined);
      return true;
    });
  }
}

test('chooseImage() accepts a manifest, and chooses the entry of an index for this processor', async () => {
  const shelf = new Shelf();
  const [arm, amd] = [shelf.image('arm', arm64, arm64), shelf.image('amd', amd64, amd64)];
  const index = shelf.index([arm, amd]);
  assert.deepEqual((await shelf.choose(amd)).digests, [amd.digest]);
  assert.deepEqual((await shelf.choose(index)).digests, [index.digest, amd.digest]);
  assert.equal(shelf.reads, 1, 'only what is chosen is read');
  await shelf.refused(shelf.index([arm]), 'unsupported', /app:1: it has no linux\/amd64 image, only linux\/arm64$/);
  await shelf.refused(shelf.index([]), 'unsupported', /only none$/);
});

test('chooseImage() follows nested indexes, and lists each', async () => {
  const shelf = new Shelf();
  const image = shelf.image('it', amd64, amd64);
  const attestation = shelf.image('att', unknown, unknown);
  const inner = shelf.index([attestation, image], { platform: amd64 });
  const outer = shelf.index([shelf.index([shelf.image('arm', arm64, arm64)], { platform: arm64 }), inner]);
  assert.deepEqual((await shelf.choose(outer)).digests, [outer.digest, inner.digest, image.digest]);
});

test('chooseImage() skips an entry that has no image for the platform it names', async () => {
  const shelf = new Shelf();
  const only = shelf.image('it', amd64, amd64);
  const empty = shelf.index([shelf.image('att', unknown, unknown)], { platform: amd64 });
  const chart = shelf.put({ config: shelf.put({}, 'application/vnd.cncf.helm.config.v1+json'), layers: [] }, '');
  const old = shelf.put({ schemaVersion: 1, fsLayers: [] }, '', { platform: amd64 });
  const index = shelf.index([empty, { ...chart, platform: amd64 }, old, only]);
  assert.equal((await shelf.choose(index)).digests.at(-1), only.digest);
});

for (const [level, variants, expected] of [
  [2, ['v4', 'v3', ''], ''],
  [3, ['v4', '', 'v2', 'v3'], 'v3'],
  [4, ['v3', 'v4', ''], 'v4'],
  [1, ['v2', 'v1'], 'v1'],
  [1, ['', 'v1'], ''],
  [3, ['V3', 'v9', 'generic'], 'V3'],
  [2, ['v3', 'v4', 'v9', 'haswell'], undefined],
] as const) {
  test(`chooseImage() on x86-64-v${level} chooses ${expected ?? 'nothing'} of ${variants.join(', ')}`, async () => {
    const shelf = new Shelf();
    const platformOf = (variant: string) => (variant === '' ? amd64 : withVariant(variant));
    const entries = variants.map((variant) => shelf.image(variant, platformOf(variant), platformOf(variant)));
    const nameless = entries.map((entry) => ({ ...entry, platform: undefined }));
    for (const all of [entries, nameless]) {
      if (expected === undefined) {
        await shelf.refused(
          shelf.index(all),
          'unsupported',
          /no linux\/amd64\/v2 image, only linux\/amd64\/v3, /,
          level,
        );
      } else {
        const chosen = await shelf.choose(shelf.index(all), level);
        assert.equal(chosen.digests.at(-1), entries[variants.findIndex((one) => one === expected)]?.digest);
      }
    }
  });
}

test('chooseImage() reads the config of an entry without a platform, after entries with one', async () => {
  const shelf = new Shelf();
  const [arm, amd] = [shelf.image('arm', arm64), shelf.image('amd', amd64)];
  assert.equal((await shelf.choose(shelf.index([arm, amd]))).digests.at(-1), amd.digest);
  const stated = shelf.image('stated', amd64, amd64);
  assert.equal((await shelf.choose(shelf.index([amd, stated]))).digests.at(-1), stated.digest);
  const nested = shelf.index([arm, amd]);
  assert.equal((await shelf.choose(shelf.index([nested]))).digests.at(-1), amd.digest);
  await shelf.refused(shelf.index([arm, shelf.image('nothing', {})]), 'unsupported', /only linux\/arm64, \?\/\?$/);
});

test('chooseImage() skips entries that are not images', async () => {
  const shelf = new Shelf();
  const it = shelf.image('it', amd64);
  const about = { annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } };
  const others = [
    shelf.image('attestation', amd64, undefined, about),
    shelf.image('attestation', amd64, amd64, about),
    shelf.image('unknown', unknown, unknown),
    shelf.image('bill', amd64, undefined, { artifactType: 'application/spdx+json' }),
    shelf.put({ config: shelf.put({}, `${oci}.empty.v1+json`), layers: [] }, types.manifest),
    { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf('layer'), size: 5, platform: amd64 },
  ];
  for (const all of [
    [it, ...others],
    [...others, it],
  ]) {
    assert.equal((await shelf.choose(shelf.index(all))).digests.at(-1), it.digest);
  }
  await shelf.refused(shelf.index(others), 'unsupported', /it has no linux\/amd64 image, only /);
});

test('chooseImage() says what a reference names if it is not an image', async () => {
  const shelf = new Shelf();
  const chart = 'application/vnd.cncf.helm.config.v1+json';
  await shelf.refused(
    shelf.put({ config: shelf.put({}, chart), layers: [] }, ''),
    'unsupported',
    /it is an artifact of type application\/vnd\.cncf\.helm\.config\.v1\+json, not an image$/,
  );
  await shelf.refused(
    shelf.put({ schemaVersion: 1, fsLayers: [] }, ''),
    'unsupported',
    /neither an image nor an index/,
  );
});

test('chooseImage() checks the digest of every document', async () => {
  for (const which of ['inner', 'manifest', 'config'] as const) {
    const shelf = new Shelf();
    const config = shelf.put(amd64, types.config);
    const manifest = shelf.put({ config, layers: [] }, types.manifest);
    const inner = shelf.index([manifest]);
    const outer = shelf.index([inner]);
    const { digest } = { inner, manifest, config }[which];
    shelf.texts.set(digest, `${shelf.texts.get(digest)} `);
    await shelf.refused(outer, 'corrupt', /digest mismatch: expected sha256:[0-9a-f]{64}, got sha256:[0-9a-f]{64}/);
  }
});

test('chooseImage() stops at its limits for any index', async () => {
  const shelf = new Shelf();
  const image = shelf.image('it', amd64, amd64);
  const nested = (depth: number) => {
    let root = image;
    for (let at = 0; at < depth; at += 1) root = shelf.index([root], { platform: amd64 });
    return root;
  };
  const { maxIndexDepth, maxIndexDocuments } = imageLimits;
  assert.equal((await shelf.choose(nested(maxIndexDepth))).digests.length, maxIndexDepth + 1);
  for (const depth of [maxIndexDepth + 1, 1000]) {
    shelf.reads = 0;
    await shelf.refused(nested(depth), 'exhausted', /its indexes are nested more than 8 deep/);
    assert.ok(shelf.reads <= maxIndexDepth);
  }

  const many = (count: number) => Array.from({ length: count }, (_, at) => shelf.image(`${at}`, arm64));
  for (const [count, reads] of [
    [1000, 0],
    [maxIndexDocuments, maxIndexDocuments],
  ] as const) {
    shelf.reads = 0;
    await shelf.refused(shelf.index(many(count)), 'exhausted', /more than 64 documents would have to be read/);
    assert.equal(shelf.reads, reads);
  }
  await shelf.refused(shelf.index(many(1001)), 'corrupt', /manifests/);

  const fill = 'x'.repeat(3 * 1024 ** 2);
  const large = Array.from({ length: 10 }, (_, at) =>
    shelf.put({ manifests: [], at, fill }, types.index, { platform: amd64 }),
  );
  await shelf.refused(shelf.index(large), 'exhausted', /have more than 16777216 bytes/);

  // Eight levels of a thousand entries that all lead to the same: the work is only that of the levels.
  let wide = shelf.index(many(3));
  for (let at = 1; at < maxIndexDepth; at += 1) wide = shelf.index(Array.from({ length: 1000 }, () => wide));
  shelf.reads = 0;
  await shelf.refused(wide, 'unsupported', /only linux\/arm64/);
  assert.ok(shelf.reads < 20);
});

test('chooseImage() ends when a registry returns the same index for every digest', async () => {
  const liar = JSON.stringify({ manifests: [{ digest: digestOf('x'), size: 1, mediaType: types.index }] });
  const documents = {
    manifest: async () => await Promise.resolve(liar),
    config: async () => await Promise.resolve(liar),
  };
  const request = { what: 'app:1', documents, processor: { architecture: 'amd64', level: 1 }, limits: imageLimits };
  await assert.rejects(chooseImage(liar, request), { kind: 'corrupt', message: /digest mismatch: expected sha256:/ });
});

interface Said {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}
/** An image, with the platforms of its config and its entry; or an index of images. */
type Node = { readonly platform: Said | undefined } & (
  | { readonly said: Said | undefined }
  | { readonly among: readonly Node[] }
);

test('chooseAmong() chooses a matching entry if there is one, and otherwise throws only PodvmError', async () => {
  const platform = fc.constantFrom<Said | undefined>(
    undefined,
    amd64,
    arm64,
    unknown,
    withVariant('v2'),
    withVariant('v3'),
  );
  const tree = fc.letrec<{ node: Node }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.record({ said: platform, platform }),
      fc.record({ among: fc.array(tie('node'), { maxLength: 4 }), platform }),
    ),
  }));
  await fc.assert(
    fc.asyncProperty(fc.array(tree.node, { maxLength: 4 }), fc.integer({ min: 1, max: 4 }), async (nodes, level) => {
      const shelf = new Shelf();
      let hasFitting = false;
      const fits = (one: Said | undefined) =>
        one?.architecture === 'amd64' && Number(one.variant?.slice(1) ?? 1) <= level;
      const build = (node: Node, isReachable: boolean): Descriptor => {
        const isOpen = isReachable && (node.platform === undefined || fits(node.platform));
        const more = node.platform === undefined ? {} : { platform: node.platform };
        if ('among' in node) {
          return shelf.index(
            node.among.map((one) => build(one, isOpen)),
            more,
          );
        }
        hasFitting ||= isOpen && (node.platform !== undefined || fits(node.said));
        return shelf.image('leaf', node.said ?? {}, node.platform);
      };
      const entries = nodes.map((node) => build(node, true));
      const read = async (digest: string) => await Promise.resolve(shelf.texts.get(digest) ?? '');
      const documents = { manifest: read, config: async (_: string, digest: string) => await read(digest) };
      const request = { what: 'it', documents, processor: { architecture: 'amd64', level }, limits: imageLimits };
      try {
        const { manifest, digests } = await chooseAmong(entries, request);
        assert.ok(hasFitting);
        assert.equal(shelf.texts.get(digests.at(-1) ?? ''), JSON.stringify(manifest));
      } catch (error) {
        assert.ok(error instanceof PodvmError, String(error));
        assert.ok(!hasFitting, 'it did not find what fits');
      }
    }),
    { numRuns: propertyRuns(300) },
  );
});
