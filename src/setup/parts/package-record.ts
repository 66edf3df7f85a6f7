import { join } from 'node:path';
import * as v from 'valibot';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';

/** A Debian package of a part, described by the signed index and its copyright file. */
const packageRecordSchema = v.object({
  name: v.string(),
  version: v.string(),
  /** `source` for a source package, otherwise the architecture of a binary package. */
  architecture: v.string(),
  /** Digest of the `.deb`, or of the source's archive. */
  sha256: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
  /** From its copyright file; empty when the file names none in a machine-readable form. */
  licences: v.array(v.string()),
});
export type PackageRecord = Readonly<v.InferOutput<typeof packageRecordSchema>>;

const recordsSchema = v.array(packageRecordSchema);
const recordsFile = 'packages.json';

/** Writes the records into the part's directory, so that they are removed with it. */
export async function writePackages(partDirectory: string, packages: readonly PackageRecord[]): Promise<void> {
  await writeFileAtomic(join(partDirectory, recordsFile), `${JSON.stringify(packages, null, 2)}\n`, 0o644);
}

/** The packages of a part; empty for a part without packages. */
export async function readPackages(partDirectory: string): Promise<readonly PackageRecord[]> {
  const text = await readFileIfThere(join(partDirectory, recordsFile));
  return text === undefined ? [] : v.parse(recordsSchema, JSON.parse(text));
}

/** Versions of Debian packages, by name. */
export type Versions = Readonly<Record<string, string>>;

export function versionsOf(packages: readonly PackageRecord[]): Versions {
  const binary = packages.filter(({ architecture }) => architecture !== 'source');
  return Object.fromEntries(binary.map(({ name, version }) => [name, version]));
}

/** Parses stanzas as `apt-cache show` prints them. */
export function parseStanzas(text: string): readonly Omit<PackageRecord, 'licences'>[] {
  return text.split(/\n\n+/).flatMap((stanza) => {
    const field = (name: string) => new RegExp(`^${name}: (\\S+)`, 'm').exec(stanza)?.[1];
    const [name, version, architecture, sha256] = ['Package', 'Version', 'Architecture', 'SHA256'].map(field);
    if (name === undefined || version === undefined || architecture === undefined) return [];
    return [{ name, version, architecture, ...(sha256 === undefined ? {} : { sha256 }) }];
  });
}

/** Parses the source of crun that `apt-get source --print-uris` names: `'URI' FILE SIZE SHA256:HASH` lines. */
export function parseSourceUris(text: string): PackageRecord | undefined {
  const files = [...text.matchAll(/^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$/gm)];
  const version = files
    .map(([, file = '']) => /^[^_]+_([^_]+)\.dsc$/.exec(file)?.[1])
    .find((found) => found !== undefined);
  const sha256 = files.find(([, file = '']) => /\.orig\.tar\.\w+$/.test(file))?.[2];
  if (version === undefined) return undefined;
  return { name: 'crun', version, architecture: 'source', ...(sha256 === undefined ? {} : { sha256 }), licences: [] };
}

const maxLicences = 100;
const maxLicenceChars = 200;

/**
 * Names of licences in a Debian copyright file: those of its paragraphs of files if it is machine-readable
 * (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/), otherwise those of /usr/share/common-licenses that
 * its text refers to.
 */
export function licencesIn(copyright: string): readonly string[] {
  const isReadable = /^Format:\s*https?:\/\//im.test(copyright.slice(0, 4096));
  const found = isReadable
    ? copyright
        .split(/\n\s*\n/)
        .filter((paragraph) => /^Files:/m.test(paragraph))
        .map((paragraph) => /^License:[ \t]*(\S[^\n]*)$/m.exec(paragraph)?.[1]?.trim() ?? '')
    : [...copyright.matchAll(/\/usr\/share\/common-licenses\/([\w.+-]*[\w+])/g)].map(([, name = '']) => name);
  const known = [...new Set(found)].filter((name) => name !== '' && name.length <= maxLicenceChars);
  return known.sort().slice(0, maxLicences);
}
