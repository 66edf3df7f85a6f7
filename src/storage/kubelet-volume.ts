import { createHash } from 'node:crypto';
import { readFile, stat, statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import type { Owner } from './host-tree.ts';
import { contentPlugins, emptyDirPlugin, kubeletPathOf, type KubeletPath } from './kubelet-path.ts';
import { mountAt, parseMountInfo, type HostMount } from '#base/mount-table.ts';

/** A kubelet's volume in the form that the guest gets. `name` is unique in its pod. */
export type KubeletVolume =
  /** Files that are copied into the guest. */
  | {
      readonly kind: 'push';
      readonly name: string;
      readonly hostPath: string;
      /** Name of the single file; undefined: a directory. */
      readonly file?: string;
      /** Whether changes on the host are copied to the guest. Kubernetes does not update sub-paths. */
      readonly isLive: boolean;
    }
  /** An empty volume of the guest, with no content on the host. */
  | {
      readonly kind: 'scratch' | 'tmpfs';
      readonly name: string;
      readonly owner: Owner;
      readonly sizeLimitBytes?: number;
      /** Sub-path of this mount in the volume. */
      readonly subPath?: string;
    };

/**
 * Returns undefined for a path that the kubelet does not maintain for this pod. Errors: `unsupported` (huge pages),
 * `internal`.
 */
export async function kubeletVolumeOf(path: string, podUid: string): Promise<KubeletVolume | undefined> {
  const known = kubeletPathOf(path, podUid);
  if (known === undefined) return undefined;
  try {
    switch (known.kind) {
      case 'content':
        return { kind: 'push', name: known.volume, hostPath: path, isLive: true };
      case 'etcHosts': // a pod's volume has no dot in its name
        return { kind: 'push', name: 'etc-hosts.file', hostPath: path, file: basename(path), isLive: true };
      case 'emptyDir':
        return await emptyDirOf(known.volume, path, undefined, await readMounts());
      case 'subPath':
        return await subPathOf(known, path);
    }
  } catch (cause) {
    if (cause instanceof PodvmError) throw cause;
    throw new PodvmError('internal', `Cannot read the kubelet's volume at ${path}`, { cause });
  }
}

const readMounts = async () => parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));

async function emptyDirOf(
  name: string,
  path: string,
  subPath: string | undefined,
  mounts: readonly HostMount[],
): Promise<KubeletVolume> {
  const { mode, uid, gid } = await stat(path);
  const rest = { name, owner: { mode: mode & 0o7777, uid, gid }, ...(subPath ? { subPath } : {}) };
  const fileSystem = mountAt(mounts, path)?.fileSystem;
  if (fileSystem === 'hugetlbfs') {
    throw new PodvmError('unsupported', `Cannot use volume ${name}: machines have no huge pages`, {
      fix: 'Set the medium of the emptyDir to "Memory", or remove it.',
    });
  }
  if (fileSystem !== 'tmpfs') return { kind: 'scratch', ...rest };
  const { blocks, bsize } = await statfs(path); // the kubelet sized it by the volume's limit
  return { kind: 'tmpfs', ...rest, ...(blocks > 0 ? { sizeLimitBytes: blocks * bsize } : {}) };
}

/** Resolves a sub-path. The kubelet bind-mounts it, so the mount tells its location in the volume. */
async function subPathOf(
  { podDirectory, volume, name }: Extract<KubeletPath, { kind: 'subPath' }>,
  path: string,
): Promise<KubeletVolume | undefined> {
  const directoryOf = (plugin: string) => join(podDirectory, 'volumes', plugin, volume);
  const found = await firstThere([...contentPlugins, emptyDirPlugin].map(directoryOf));
  if (found === undefined) return undefined;
  if (found !== directoryOf(emptyDirPlugin)) {
    const isFile = (await stat(path)).isFile();
    const file = isFile ? { file: basename(path) } : {};
    return { kind: 'push', name: guestNameOf(`${volume}.${name}`), hostPath: path, ...file, isLive: false };
  }
  const mounts = await readMounts();
  const mount = mountAt(mounts, path);
  if (mount === undefined) return undefined;
  return await emptyDirOf(volume, found, placeOf(mount, mountAt(mounts, found), found), mounts);
}

/**
 * Returns the location in the volume where a bind mount begins. The kernel reports it relative to the root of the file
 * system, which is the volume's own or contains the volume.
 */
function placeOf(mount: HostMount, volume: HostMount | undefined, directory: string): string {
  const root = mount.root.replace(/\/\/deleted$/, '');
  if (volume !== undefined && volume.device === mount.device) return root.slice(1);
  const [pod, tail] = [basename(join(directory, '../../..')), directory.split('/').slice(-3).join('/')];
  const marker = `/${pod}/${tail}/`;
  const at = `${root}/`.indexOf(marker);
  if (at >= 0) return root.slice(at + marker.length);
  throw new PodvmError('internal', `Cannot mount a sub-path: ${mount.point} is not inside ${directory}, got ${root}`);
}

async function firstThere(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    if (await isThere(path)) return path;
  }
  return undefined;
}

const maxNameChars = 128; // the wire's

function guestNameOf(name: string): string {
  return name.length <= maxNameChars ? name : `sub-path.${createHash('sha256').update(name).digest('hex')}`;
}
