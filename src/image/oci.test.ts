import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { readArchive } from './archive.ts';
import { imageConfigOf, readRecords, rootfsDirectory } from './image-record.ts';
import { readLayoutImage } from './layout.ts';
import { imageLimits } from './limits.ts';
import {
  chooseManifest,
  compressionOf,
  configSchema,
  digestOf,
  indexSchema,
  isIndex,
  manifestSchema,
  maxDocumentBytes,
  parseOci,
} from './oci.ts';
import { explainSkopeo } from './skopeo-words.ts';

const digest = fc.constantFrom(digestOf('a'), digestOf('b'), 'sha256:short', 'md5:x', 7, undefined);
const text = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.constantFrom('linux', 'amd64', 'application/vnd.oci.image.layer.v1.tar'),
);
const anything = fc.jsonValue({ maxDepth: 3 });
const descriptor = fc.oneof(
  anything,
  fc.record(
    {
      mediaType: fc.oneof(text, anything),
      digest,
      size: fc.oneof(fc.nat(), fc.double(), anything),
      platform: fc.oneof(fc.record({ os: text, architecture: text }), anything),
      annotations: fc.oneof(fc.dictionary(fc.string(), fc.string()), anything),
    },
    { requiredKeys: [] },
  ),
);
/** Documents that are nearly right, so that they get deep into what reads them. */
const documents = fc.oneof(
  anything,
  fc.record({ manifests: fc.array(descriptor, { maxLength: 3 }) }),
  fc.record({ config: descriptor, layers: fc.array(descriptor, { maxLength: 3 }) }, { requiredKeys: [] }),
  fc.record(
    {
      os: fc.oneof(text, anything),
      architecture: fc.oneof(text, anything),
      rootfs: fc.record({ diff_ids: fc.oneof(fc.array(digest), anything) }),
      config: fc.oneof(anything, fc.record({ Env: anything, Cmd: anything, User: anything }, { requiredKeys: [] })),
    },
    { requiredKeys: [] },
  ),
);
const bytes = fc.oneof(
  { weight: 5, arbitrary: documents.map((value) => JSON.stringify(value)) },
  { weight: 1, arbitrary: fc.string() },
);

/** What it returns, or undefined when it throws an error of ours; any other error fails the test. */
function orRefused<T>(attempt: () => T): T | undefined {
  try {
    return attempt();
  } catch (error) {
    assert.ok(error instanceof PodvmError, String(error));
    assert.ok(error.message.length < 2000, 'an error quotes too much');
    return undefined;
  }
}

test('parseOci() and what uses it take any document, or refuse it with an error of ours', () => {
  fc.assert(
    fc.property(bytes, (said) => {
      const index = orRefused(() => parseOci('it', said, indexSchema));
      assert.ok(index === undefined || isIndex(said));
      if (index !== undefined) orRefused(() => chooseManifest('it', index.manifests, 'amd64'));
      const manifest = orRefused(() => parseOci('it', said, manifestSchema));
      for (const layer of manifest?.layers ?? []) orRefused(() => compressionOf(layer));
      const config = orRefused(() => parseOci('it', said, configSchema));
      if (config !== undefined) imageConfigOf(config);
    }),
    { numRuns: 1000 },
  );
});

test('readArchive() and readRecords() survive any document on disk', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-oci-'));
  try {
    await mkdir(rootfsDirectory(directory));
    const options = { work: directory, limits: imageLimits, signal: new AbortController().signal };
    const mayRefuse = async (attempt: Promise<unknown>) =>
      await attempt.catch((error: unknown) => assert.ok(error instanceof PodvmError, String(error)));
    await fc.assert(
      fc.asyncProperty(bytes, async (said) => {
        await writeFile(join(directory, 'index.json'), said);
        await mayRefuse(readArchive(directory, options));
        await mayRefuse(readRecords(directory));
        const file = join(directory, 'blob');
        await writeFile(file, said);
        const blob = { mediaType: '', digest: digestOf(said), size: 1 };
        await mayRefuse(readLayoutImage('it', () => file, blob));
      }),
      { numRuns: 300 },
    );
    await writeFile(join(directory, 'index.json'), ' '.repeat(maxDocumentBytes + 1));
    await assert.rejects(readArchive(directory, options), { kind: 'corrupt' });
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('parseOci() names the field, and quotes nothing of what it could not read', () => {
  const message = (said: string) => {
    try {
      parseOci('the manifest', said, manifestSchema);
      return 'taken';
    } catch (error) {
      assert.ok(error instanceof PodvmError && error.fix !== undefined && error.cause === undefined);
      return error.message;
    }
  };
  assert.equal(message('root:secret:0:0'), 'Cannot read the manifest: it is no JSON');
  assert.match(message('{"config":{"digest":"x"}}'), /^Cannot read the manifest: config\.digest: no sha256 digest$/);
  const layers = Array.from({ length: 501 }, () => ({ digest: digestOf('a'), size: 1 }));
  assert.match(message(JSON.stringify({ config: layers[0], layers })), /Cannot read the manifest: layers: /);
});

test('compressionOf() refuses encrypted, foreign and unknown layers', () => {
  const of = (mediaType: string) => compressionOf({ mediaType, digest: digestOf('a'), size: 1 });
  for (const bad of [
    '',
    'text/html',
    'application/vnd.oci.image.layer.v1.tar+encrypted',
    'application/vnd.oci.image.config.v1+json',
  ])
    assert.throws(() => of(bad), { kind: 'unsupported' });
  assert.equal(of('application/vnd.docker.image.rootfs.diff.tar.gzip'), 'gzip');
  assert.equal(of('application/vnd.oci.image.layer.v1.tar+zstd'), 'zstd');
  assert.equal(of('application/vnd.oci.image.layer.v1.tar'), 'none');
});

test('explainSkopeo() makes one short sentence of whatever skopeo said', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 2000 }), { maxLength: 3 }), (lines) => {
      const said = new PodvmError('internal', `Cannot run skopeo: ${lines.join(' ')}`, { tail: lines });
      const error = explainSkopeo('r.example/a:1', said);
      assert.ok(error instanceof PodvmError && error.cause instanceof Error);
      assert.match(error.message, /^Cannot pull r\.example\/a:1: [\w' ,.-]+$/);
      assert.match(error.cause.message, /^[\u0020-\u007e]{0,250}$/);
    }),
  );
  const cancelled = new PodvmError('cancelled', 'x');
  assert.equal(explainSkopeo('a', cancelled), cancelled);
});
