import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiskUsage } from '#api/disk-usage.ts';
import { run } from '#host/process/run.ts';
import { superseded } from '#setup/parts/parts.ts';
import { readCurrent } from '#setup/setup.ts';

type Use = DiskUsage['uses'][number];
/** A directory or file of the state directory, and its use. */
type Place = Omit<Use, 'bytes'> & { readonly path: string };

const timeoutMs = 120_000;
/** Directories that are listed as one. */
const whole = { images: 'images', sandboxes: 'pods', ended: 'ended', volumes: 'volumes' } as const;

/** Measures the state directory, as root. Errors: those of running `du`. */
export async function readDiskUsage(root: string, signal: AbortSignal): Promise<DiskUsage> {
  const found = await placesIn(root);
  const sizes = await sizesOf(
    found.map(({ path }) => path),
    signal,
  );
  const measured = found.map(({ path, ...place }) => ({ ...place, bytes: sizes.get(path) ?? 0 }));
  const others = measured.filter(({ kind }) => kind === 'other');
  const uses = [
    ...measured.filter(({ kind }) => kind !== 'other').toSorted(byKindAndSize),
    { kind: 'other' as const, isOld: false, bytes: sumOf(others) },
  ];
  return { root, totalBytes: sumOf(uses), uses };
}

const sumOf = (uses: readonly Use[]) => uses.reduce((sum, { bytes }) => sum + bytes, 0);

const kinds = [
  'part',
  'template',
  'images',
  'pods',
  'ended',
  'volumes',
  'other',
] as const satisfies readonly Use['kind'][];
const byKindAndSize = (one: Use, other: Use) =>
  kinds.indexOf(one.kind) - kinds.indexOf(other.kind) || other.bytes - one.bytes;

/** Images come before pods: each machine's directory has hard links to its images. */
async function placesIn(root: string): Promise<readonly Place[]> {
  const entries = await entriesOf(root);
  const [parts, old] = [join(root, 'parts'), await oldParts(root)];
  const places = await Promise.all(
    entries.toSorted().map(async (name): Promise<readonly Place[]> => {
      const path = join(root, name);
      const below = async (kind: 'part' | 'template', isOld: (entry: string) => boolean) =>
        (await entriesOf(path)).map((entry) => ({ kind, name: entry, isOld: isOld(entry), path: join(path, entry) }));
      if (path === parts) return await below('part', (entry) => old.has(entry));
      if (name === 'templates') return await below('template', () => false);
      if (name === 'images' || name === 'sandboxes' || name === 'ended' || name === 'volumes')
        return [{ kind: whole[name], isOld: false, path }];
      return [{ kind: 'other', isOld: false, path }];
    }),
  );
  return places.flat();
}

async function oldParts(root: string): Promise<ReadonlySet<string>> {
  const current = await readCurrent(root);
  if (current === undefined) return new Set();
  return new Set(await superseded(join(root, 'parts'), new Set(current.parts)));
}

/** A directory that is absent, or has just been removed, has no entries. */
const entriesOf = async (directory: string): Promise<readonly string[]> => await readdir(directory).catch(() => []);

/** Disk space by path, in bytes. `du` ends with 1 for files that are removed while it runs. */
async function sizesOf(paths: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
  if (paths.length === 0) return new Map();
  const options = ['--block-size=1', '--summarize', '--one-file-system', '--dereference-args', '--null', '--'];
  const { stdout } = await run('du', [...options, ...paths], { okCodes: [0, 1], signal, timeoutMs });
  return new Map([...stdout.matchAll(/(\d+)\t([^\0]*)\0/g)].map(([, bytes, path = '']) => [path, Number(bytes)]));
}
