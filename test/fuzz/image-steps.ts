import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import * as v from 'valibot';
import { entryBytes, tarOf, type TarSpec } from '#image/tar/tar-builder.ts';

/**
 * Images in archives, with faults in layers, manifests and indexes. Digests and sizes are right at first, so that the
 * faults behind them are read; a document's text and a layer's bytes may be changed after that.
 */
const number = v.number();
const kinds = ['file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo', 'contiguous', 'unknown'] as const;
const memberSchema = v.object({
  name: v.string(),
  type: v.picklist(kinds),
  bytes: number,
  mode: number,
  uid: number,
  target: v.string(),
  device: v.tuple([number, number]),
  xattrs: v.record(v.string(), v.string()),
  dialect: v.picklist(['pax', 'gnu']),
  pax: v.record(v.string(), v.string()),
  times: number,
});
const layerSchema = v.object({
  members: v.array(memberSchema),
  compression: v.picklist(['none', 'gzip', 'zstd', 'twice']),
  /** Bytes of headers, with a checksum that fits the first of them. */
  changes: v.array(v.tuple([number, number])),
  cut: number,
  hasOtherDigest: v.boolean(),
});
export const imageSchema = v.object({
  form: v.picklist(['docker', 'oci', 'both']),
  layers: v.array(layerSchema),
  /** Indexes around the manifest; 99: one that names itself. */
  indexes: number,
  /** Texts that stand in the place of fields, by their names. */
  lies: v.record(v.string(), v.unknown()),
  /** Further members of the archive itself. */
  beside: v.array(memberSchema),
  changes: v.array(v.tuple([number, number])),
  cut: number,
});
export type HostileImage = v.InferOutput<typeof imageSchema>;
type Member = v.InferOutput<typeof memberSchema>;
type HostileLayer = v.InferOutput<typeof layerSchema>;

const rarely = <T>(usual: T, seldom: fc.Arbitrary<T>, weight = 8) =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: seldom });
const paths = fc.oneof(
  fc.constantFrom(
    'a',
    'b',
    'a/b',
    'a/b/c',
    'l',
    'l/x',
    'd/',
    '.wh.a',
    'a/.wh.b',
    'a/.wh..wh..opq',
    '.wh.',
    '.wh...',
    'etc/passwd',
  ),
  fc.constantFrom(
    '../outside',
    '/outside',
    'a/../../outside',
    './a',
    '.',
    '',
    '/',
    'a//b',
    '..',
    'x'.repeat(256),
    '\u0001',
    'ü',
  ),
  fc.constantFrom('d/'.repeat(1100), 'l/'.repeat(200), `${'y'.repeat(200)}/`.repeat(21)),
);
const member: fc.Arbitrary<Member> = fc.record({
  name: paths,
  type: fc.constantFrom(...kinds, 'file', 'directory', 'symlink', 'link'),
  bytes: rarely(5, fc.constantFrom(0, 511, 513, 70_000, 600_000), 4),
  mode: fc.constantFrom(0o644, 0o4755, 0, 0o7777, 0o177_777),
  uid: rarely(0, fc.constantFrom(1000, 0xffff_ffff, 2 ** 21)),
  target: fc.oneof(paths, fc.constantFrom('l', '../../..', '/', '/proc/self/root/outside', 'a/../'.repeat(300), '')),
  device: fc.tuple(rarely(1, fc.nat(0xff_ffff)), rarely(3, fc.nat(0xff_ffff))),
  xattrs: rarely<Record<string, string>>(
    {},
    fc.dictionary(
      fc.constantFrom(
        'user.x',
        'trusted.overlay.opaque',
        'security.capability',
        'system.posix_acl_access',
        '',
        'x'.repeat(300),
      ),
      fc.constantFrom('', 'y', 'z'.repeat(4000), 'z'.repeat(66_000)),
      { maxKeys: 3 },
    ),
  ),
  dialect: fc.constantFrom('pax', 'gnu'),
  pax: rarely<Record<string, string>>(
    {},
    fc.dictionary(
      fc.constantFrom(
        'path',
        'linkpath',
        'size',
        'uid',
        'GNU.sparse.major',
        'GNU.sparse.minor',
        'GNU.sparse.map',
        'GNU.sparse.size',
        'GNU.sparse.realsize',
        'GNU.sparse.numblocks',
        'hdrcharset',
      ),
      fc.constantFrom(
        '',
        '0',
        '1',
        '-1',
        '1e9',
        '99999999999999999999',
        '1099511627776',
        '0,1,1048576,5',
        '5,5,0,5',
        'a',
        '../x',
        '\0',
      ),
      { maxKeys: 4 },
    ),
    4,
  ),
  times: rarely(1, fc.constantFrom(20, 700), 12),
});
const changes = (within: number) =>
  rarely<[number, number][]>([], fc.array(fc.tuple(fc.nat(within), fc.nat(255)), { maxLength: 4 }), 3);
const layer: fc.Arbitrary<HostileLayer> = fc.record({
  members: fc.array(member, { maxLength: 14, size: 'max' }),
  compression: fc.constantFrom('none', 'none', 'gzip', 'zstd', 'twice'),
  changes: changes(2048),
  cut: rarely(0, fc.nat(3000)),
  hasOtherDigest: rarely(false, fc.constant(true), 20),
});
const lie = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    -1,
    2 ** 53,
    '',
    '../../outside',
    'sha256:',
    `sha256:${'0'.repeat(64)}`,
    {},
    [],
    'x'.repeat(5000),
  ),
  fc.jsonValue({ maxDepth: 2 }),
);
const fields = [
  'Config',
  'Layers',
  'RepoTags',
  'digest',
  'size',
  'mediaType',
  'manifests',
  'layers',
  'config',
  'rootfs',
  'diff_ids',
  'architecture',
  'schemaVersion',
  'annotations',
  'platform',
  'Cmd',
  'Env',
  'User',
  'Volumes',
];

export const images: fc.Arbitrary<HostileImage> = fc.record({
  form: fc.constantFrom('docker', 'docker', 'oci', 'both'),
  layers: fc.array(layer, { minLength: 1, maxLength: 4 }),
  indexes: rarely(0, fc.constantFrom(1, 3, 9, 30, 99), 3),
  lies: rarely<Record<string, unknown>>(
    {},
    fc.dictionary(fc.constantFrom(...fields), lie, { minKeys: 1, maxKeys: 2 }),
    2,
  ),
  beside: rarely<Member[]>([], fc.array(member, { maxLength: 4 }), 3),
  changes: rarely<[number, number][]>([], fc.array(fc.tuple(fc.nat(4096), fc.nat(255)), { maxLength: 2 })),
  cut: rarely(0, fc.nat(4000), 15),
});

const digestOf = (bytes: Uint8Array | string) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

function membersOf(list: readonly Member[]): Buffer[] {
  return list.flatMap(({ bytes, times, type, ...rest }) => {
    const isPlain = type === 'file' || type === 'contiguous';
    const spec: TarSpec = { ...rest, type, ...(isPlain ? { content: Buffer.alloc(bytes, 0x61) } : {}) };
    return Array.from({ length: times }, (_, at) =>
      entryBytes(at === 0 ? spec : { ...spec, name: `${spec.name}${at}` }),
    );
  });
}

function layerOf({ members, compression, changes: changed, cut, hasOtherDigest }: HostileLayer) {
  const whole = Buffer.concat([...membersOf(members), Buffer.alloc(1024)]);
  for (const [at, value] of changed) if (at < whole.length) whole[at] = value;
  if (changed.length > 0) mendSum(whole);
  const tar = whole.subarray(0, Math.max(0, whole.length - cut));
  const blob = {
    none: () => tar,
    gzip: () => gzipSync(tar, { level: 1 }),
    zstd: () => zstdCompressSync(tar),
    twice: () => gzipSync(zstdCompressSync(tar), { level: 1 }),
  }[compression]();
  return { blob, diffId: digestOf(hasOtherDigest ? 'other' : tar) };
}

/** Corrects the checksum of the first header. */
function mendSum(tar: Buffer): void {
  if (tar.length < 512) return;
  tar.fill(' ', 148, 156);
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

/** The bytes of an archive. */
export function archiveOf(image: HostileImage): Buffer {
  const say = (value: unknown) =>
    JSON.stringify(value, (key, each: unknown) => (Object.hasOwn(image.lies, key) ? image.lies[key] : each));
  const layers = image.layers.map(layerOf);
  const config = say({
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['/a'], Env: ['A=b'], User: '0', Volumes: { '/v': {} } },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const files: TarSpec[] = [];
  if (image.form !== 'oci') {
    const names = layers.map((_, at) => `l${at}.tar`);
    files.push({
      name: 'manifest.json',
      content: say([{ Config: 'c.json', RepoTags: ['localhost/x:1'], Layers: names }]),
    });
    files.push(
      { name: 'c.json', content: config },
      ...layers.map(({ blob }, at) => ({ name: `l${at}.tar`, content: blob })),
    );
  }
  if (image.form !== 'docker') {
    const put = (content: string | Buffer, mediaType: string) => {
      const digest = digestOf(content);
      files.push({ name: `blobs/sha256/${digest.slice(7)}`, content });
      return { mediaType, digest, size: Buffer.byteLength(content) };
    };
    const oci = 'application/vnd.oci.image';
    const blobs = layers.map(({ blob }) => put(blob, `${oci}.layer.v1.tar`));
    const mediaType = `${oci}.manifest.v1+json`;
    const manifest = { schemaVersion: 2, mediaType, config: put(config, `${oci}.config.v1+json`), layers: blobs };
    let last = put(say(manifest), mediaType);
    const nest = (inner: unknown) =>
      say({ schemaVersion: 2, mediaType: `${oci}.index.v1+json`, manifests: [inner, inner] });
    for (let depth = 0; depth < Math.min(image.indexes, 40); depth += 1) last = put(nest(last), `${oci}.index.v1+json`);
    files.push(
      { name: 'index.json', content: nest(last) },
      { name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' },
    );
  }
  const whole = Buffer.concat([...membersOf(image.beside), tarOf(files)]);
  for (const [at, value] of image.changes) if (at < whole.length) whole[at] = value;
  if (image.changes.length > 0) mendSum(whole);
  return whole.subarray(0, whole.length - image.cut);
}
