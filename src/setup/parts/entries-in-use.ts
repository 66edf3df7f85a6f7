import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { type HostMount, isBelow, parseMountInfo } from '#base/mount-table.ts';
import { allPids } from '#host/process/process-identity.ts';

/** Where an entry of a directory really is. */
interface Place {
  readonly entry: string;
  readonly path: string;
  /** Device and inode. */
  readonly identity: string;
  /** The file system, as mount tables name it, and the path in it. */
  readonly device: string;
  readonly inFileSystem: string;
}

/**
 * Returns those entries of a directory that a process of the host has mounted, or holds open. Their places count and not their
 * names: another state directory has parts of the same names.
 */
export async function entriesInUse(directory: string, entries: readonly string[]): Promise<ReadonlySet<string>> {
  const own = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  const found = await Promise.all(entries.map((entry) => placeOf(directory, entry, own)));
  const places = found.filter((place) => place !== undefined);
  // In this order: a process that holds an entry may end once another, which it has started, has mounted it.
  const held = await allHeld(new Set(places.map(({ path }) => basename(path))));
  const mounts = await allMounts();
  const isUsed = (place: Place) => held.some((each) => isIn(each, place)) || mounts.some((each) => shows(each, place));
  return new Set(places.filter(isUsed).map(({ entry }) => entry));
}

/** Undefined for a link to nothing. */
async function placeOf(directory: string, entry: string, mounts: readonly HostMount[]): Promise<Place | undefined> {
  const path = await realpath(join(directory, entry)).catch(() => undefined);
  const identity = path === undefined ? undefined : await identityOf(path);
  if (path === undefined || identity === undefined) return undefined;
  const { device, root, point } = mountOf(path, mounts);
  return { entry, path, identity, device, inFileSystem: join(root, relative(point, path)) };
}

/** The mount that shows the path: the innermost, and of several at one point the last. */
function mountOf(path: string, mounts: readonly HostMount[]): HostMount {
  const around = mounts.filter(({ point }) => isBelow(path, point));
  return around.reduce((inner, mount) => (mount.point.length >= inner.point.length ? mount : inner));
}

async function identityOf(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found && `${found.dev}:${found.ino}`;
}

/** The mounts of all processes: a jail that binds a part's `/usr` shows the part's path as the mount's root. */
async function allMounts(): Promise<readonly HostMount[]> {
  const mounts = new Map<string, HostMount>();
  for (const pid of await allPids()) {
    const table = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''); // it may end meanwhile
    for (const mount of parseMountInfo(table)) mounts.set(`${mount.device} ${mount.root}`, mount);
  }
  return [...mounts.values()];
}

const shows = ({ device, root }: HostMount, { device: own, inFileSystem }: Place) =>
  device === own && (root === inFileSystem || isBelow(root, inFileSystem));

interface Held {
  readonly path: string;
  /** Of what has one of the names. */
  readonly identity?: string | undefined;
}

/** The targets of the descriptors of all processes. */
async function allHeld(names: ReadonlySet<string>): Promise<readonly Held[]> {
  const held = new Map<string, Held>();
  for (const pid of await allPids()) {
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      const link = `/proc/${pid}/fd/${fd}`;
      const path = await readlink(link).catch(() => undefined);
      if (path === undefined) continue;
      const identity = names.has(basename(path)) ? await identityOf(link) : undefined;
      held.set(`${identity} ${path}`, { path, identity });
    }
  }
  return [...held.values()];
}

/** A directory is known in any mount namespace, and a file in it by its path. */
const isIn = (held: Held, { path, identity }: Place) => held.identity === identity || isBelow(held.path, path);
