import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { entryBytes, tarOf } from '#image/tar/tar-builder.ts';

/** Writes a docker-archive with one gzip layer of these members, which is never in memory as a whole. */
async function writeArchive(path: string, name: string, members: Iterable<Buffer>): Promise<void> {
  const hash = createHash('sha256');
  const digesting = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
  const layer = `${path}.layer`;
  await pipeline(Readable.from(members), digesting, createGzip({ level: 1 }), createWriteStream(layer));
  const config = {
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['/x'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
  };
  const manifest = [{ Config: 'c.json', RepoTags: [name], Layers: ['l.tar'] }];
  const files = [
    { name: 'manifest.json', content: JSON.stringify(manifest) },
    { name: 'c.json', content: JSON.stringify(config) },
    { name: 'l.tar', content: await readFile(layer) },
  ];
  await writeFile(path, tarOf(files));
  await rm(layer);
}

const end = Buffer.alloc(1024);

/** Files with 60,000 bytes of extended attributes each: every file is within its limit. */
export async function writeXattrArchive(path: string, files: number): Promise<void> {
  await writeArchive(path, 'localhost/xattrs:1', members());
  function* members() {
    for (let at = 0; at < files; at += 1)
      yield entryBytes({ name: `f${at}`, xattrs: { 'user.x': String(at).padStart(8, '0').padEnd(60_000, 'a') } });
    yield end;
  }
}

/** Files behind 40 symbolic links of 1,600 parts each, all of which lead to one directory. */
export async function writeLinksArchive(path: string, files: number): Promise<void> {
  await writeArchive(path, 'localhost/links:1', members());
  function* members() {
    const detour = 'a/../'.repeat(800);
    yield entryBytes({ name: 'a', type: 'directory' });
    for (let at = 0; at < 40; at += 1) {
      const target = `${detour}${at < 39 ? `l${at + 1}` : 'a'}`;
      yield entryBytes({ name: `l${at}`, type: 'symlink', target, dialect: 'gnu' });
    }
    for (let at = 0; at < files; at += 1) yield entryBytes({ name: `l0/f${at}` });
    yield end;
  }
}

/** Whiteouts in one directory, each of which goes over all files of its own layer. */
export async function writeWhiteoutArchive(path: string, files: number): Promise<void> {
  await writeArchive(path, 'localhost/whiteouts:1', members());
  function* members() {
    for (let at = 0; at < files; at += 1) yield entryBytes({ name: `d/f${at}` });
    for (let at = 0; at < files; at += 1) yield entryBytes({ name: 'd/.wh..wh..opq' });
    yield end;
  }
}

/** Directories inside each other that no member describes: hundreds for each member. */
export async function writeDeepArchive(path: string, files: number): Promise<void> {
  await writeArchive(path, 'localhost/deep:1', members());
  function* members() {
    for (let at = 0; at < files; at += 1) yield entryBytes({ name: `${at}/${'d/'.repeat(990)}x`, dialect: 'gnu' });
    yield end;
  }
}
