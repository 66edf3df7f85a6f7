import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { readArchive } from './source/archive.ts';
import {
  imageConfigOf,
  readRecords,
  layersDirectory,
  membersDirectory,
  rootfsDirectory,
} from './store/image-record.ts';
import { readLayoutImage } from './source/layout.ts';
import { imageLimits } from './limits.ts';
import {
  checkLayerType,
  configSchema,
  digestOf,
  manifestSchema,
  maxDocumentBytes,
  parseDocument,
  parseOci,
} from './oci.ts';
import { explainSkopeo } from './source/skopeo-words.ts';
import { propertyRuns } from '../../test/property-runs.ts';

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
/** Nearly valid documents, which get deep into the parsers. */
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

/** Returns the result, or undefined for a PodvmError; any other error fails the test. */
function orRefused<T>(attempt: () => T): T | undefined {
  try {
    return attempt();
  } catch (error) {
    assert.ok(error instanceof PodvmError, String(error));
    assert.ok(error.message.length < 2000, 'an error quotes too much');
    return undefined;
  }
}

test('parseOci() and its users accept a document, or throw only PodvmError', () => {
  fc.assert(
    fc.property(bytes, (said) => {
      orRefused(() => parseDocument('it', said));
      const manifest = orRefused(() => parseOci('it', said, manifestSchema));
      for (const layer of manifest?.layers ?? []) orRefused(() => checkLayerType(layer));
      const config = orRefused(() => parseOci('it', said, configSchema));
      if (config !== undefined) imageConfigOf(config);
    }),
    { numRuns: propertyRuns(1000) },
  );
});

test('readArchive() and readRecords() survive any document on disk', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-oci-'));
  try {
    for (const made of [rootfsDirectory, layersDirectory, membersDirectory]) await mkdir(made(directory));
    const reader = { limits: imageLimits, processor: { architecture: 'amd64', level: 1 } };
    const options = { work: directory, ...reader, signal: new AbortController().signal };
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
        await mayRefuse(readLayoutImage('it', () => file, [blob], reader));
      }),
      { numRuns: propertyRuns(300) },
    );
    await writeFile(join(directory, 'index.json'), ' '.repeat(maxDocumentBytes + 1));
    await assert.rejects(readArchive(directory, options), { kind: 'corrupt' });
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('parseOci() names the invalid field, without quoting its value', () => {
  const message = (said: string) => {
    try {
      parseOci('the manifest', said, manifestSchema);
      return 'taken';
    } catch (error) {
      assert.ok(error instanceof PodvmError && error.fix !== undefined && error.cause === undefined);
      return error.message;
    }
  };
  assert.equal(message('root:secret:0:0'), 'Cannot read the manifest: it is not JSON');
  assert.match(message('{"config":{"digest":"x"}}'), /^Cannot read the manifest: config\.digest: not a sha256 digest$/);
  const layers = Array.from({ length: 501 }, () => ({ digest: digestOf('a'), size: 1 }));
  assert.match(message(JSON.stringify({ config: layers[0], layers })), /Cannot read the manifest: layers: /);
});

test('parseDocument() recognises a document by its content, and refuses an ambiguous one', () => {
  const blob = { digest: digestOf('a'), size: 1 };
  const kindOf = (said: object) => parseDocument('it', JSON.stringify(said)).kind;
  assert.equal(kindOf({ manifests: [blob] }), 'index');
  assert.equal(kindOf({ config: blob, layers: [] }), 'manifest');
  assert.equal(kindOf({ schemaVersion: 1, fsLayers: [], history: [] }), 'other');
  assert.equal(kindOf({ config: blob }), 'other');
  for (const also of [{ config: blob }, { layers: [] }]) {
    assert.throws(() => kindOf({ manifests: [blob], ...also }), {
      kind: 'corrupt',
      message: /both an index and a manifest/,
    });
  }
});

test('checkLayerType() refuses encrypted, foreign and unknown layers', () => {
  const of = (mediaType: string) => checkLayerType({ mediaType, digest: digestOf('a'), size: 1 });
  for (const bad of [
    '',
    'text/html',
    'application/vnd.oci.image.layer.v1.tar+encrypted',
    'application/vnd.oci.image.config.v1+json',
  ])
    assert.throws(() => of(bad), { kind: 'unsupported' });
  of('application/vnd.docker.image.rootfs.diff.tar.gzip');
  of('application/vnd.oci.image.layer.v1.tar+zstd');
  of('application/vnd.oci.image.layer.v1.tar');
});

test('explainSkopeo() distinguishes the reasons', () => {
  const pinging = 'pinging container registry r.example: Get \\"https://r.example/v2/\\"';
  const reading = 'initializing source docker://r.example/a:1: reading manifest 1 in r.example/a';
  for (const [said, kind, cause] of [
    [`${reading}: manifest unknown: manifest unknown`, 'notFound', /manifest unknown$/],
    [`${reading}: name unknown: repository name not known to registry`, 'notFound', /not known to registry$/],
    [`${reading}: errors:\\ndenied: requested access to the resource is denied`, 'denied', /is denied$/],
    [`${reading}: unauthorized: authentication required`, 'denied', /authentication required$/],
    [`${pinging}: dial tcp 192.0.2.1:443: connect: connection refused`, 'unavailable', /connection refused$/],
    [`${pinging}: dial tcp: lookup r.example on 192.0.2.53:53: no such host`, 'unavailable', /no such host$/],
    [`${pinging}: x509: certificate signed by unknown authority`, 'unavailable', /unknown authority$/],
    [`${pinging}: http: server gave HTTP response to HTTPS client`, 'unavailable', /HTTPS client$/],
    ['writing blob: write /work/layout/oci-put-blob1: no space left on device', 'exhausted', /no space left/],
    ['Source image rejected: Running image docker://r.example/a:1 is rejected by policy.', 'denied', /by policy\.$/],
    ['writing blob: happened during read: unexpected EOF', 'unavailable', /unexpected EOF$/],
    ['initializing source docker://r.example/a:1: unexpected EOF', 'unavailable', /unexpected EOF$/],
    [`reading blob sha256:00: Get \\"https://r.example/v2/a/blobs/sha256:00\\": EOF`, 'unavailable', /EOF$/],
    [
      'writing blob: happened during read: read tcp 192.0.2.1: read: connection reset by peer',
      'unavailable',
      /by peer$/,
    ],
    ['reading blob sha256:00: Error fetching blob: invalid status code from registry 503 (x)', 'unavailable', /503/],
    ['reading blob sha256:00: too many requests to registry', 'unavailable', /too many/],
    ['writing blob: happened during read: Digest did not match, expected sha256:00, got sha256:11', 'corrupt', /got/],
    ['something no one has heard of', 'internal', /no one has heard of/],
  ] as const) {
    const line = `time="2024-01-01T00:00:00Z" level=fatal msg="${said}"`;
    const error = explainSkopeo('pull r.example/a:1', `noise\n${line}\n`);
    assert.ok(error.cause instanceof Error);
    assert.equal(error.kind, kind, `${said}: ${error.message}`);
    assert.match(error.cause.message, cause);
    assert.doesNotMatch(error.cause.message, /msg=|\\/);
  }
  assert.equal(explainSkopeo('pull a', 'bwrap: No permissions to create new namespace\n').kind, 'failedPrecondition');
});

test('explainSkopeo() makes one short sentence of any output of skopeo', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 2000 }), { maxLength: 3 }), (lines) => {
      const error = explainSkopeo('pull r.example/a:1', lines.join('\n'));
      assert.ok(error.cause instanceof Error);
      assert.match(error.message, /^Cannot pull r\.example\/a:1: [\w' ,.-]+$/);
      assert.match(error.cause.message, /^[\u0020-\u007e]*$/);
      assert.ok(error.cause.message.length <= 6 * 200 + 3);
    }),
  );
});
