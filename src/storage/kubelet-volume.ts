import { createHash } from 'node:crypto';
import { readFile, stat, statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/files.ts';
import type { Owner } from './host-tree.ts';
import { contentPlugins, emptyDirPlugin, kubeletPathOf, type KubeletPath } from './kubelet-path.ts';
import { mountAt, parseMountInfo, type HostMount } from '#base/mount-table.ts';

/** A volume of a kubelet, as the guest is to have it. `name` is unique in its pod. */
export type KubeletVolume =
  /** Its files are copied into the guest. */
  | {
      readonly kind: 'push';
      readonly name: string;
      readonly hostPath: string;
      /** Name of the one file it is; undefined: a directory. */
      readonly file?: string;
      /** What changes on the host changes in the guest. Not so for a sub-path, as Kubernetes says of it. */
      readonly isLive: boolean;
    }
  /** Empty, and the guest's own: nothing of it is on the host. */
  | {
      readonly kind: 'scratch' | 'tmpfs';
      readonly name: string;
      readonly owner: Owner;
      readonly sizeLimitBytes?: number;
      /** Of this mount, in the volume. */
      readonly subPath?: string;
    };

/** Undefined: no volume that a kubelet keeps for this pod. Errors: `unsupported` (huge pages), `internal`. */
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
    throw new PodvmError('internal', `Cannot look at the kubelet's volume at ${path}`, { cause });
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
    throw new PodvmError('unsupported', `Cannot use volume ${name}: a machine's memory has no huge pages to give`, {
      fix: 'Give the emptyDir the medium "Memory", or none.',
    });
  }
  if (fileSystem !== 'tmpfs') return { kind: 'scratch', ...rest };
  const { blocks, bsize } = await statfs(path); // the kubelet made it as large as the volume's limit
  return { kind: 'tmpfs', ...rest, ...(blocks > 0 ? { sizeLimitBytes: blocks * bsize } : {}) };
}

/** The kubelet bind-mounted it there: what is mounted says where in the volume it is. */
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
 * Where in the volume a bind mount of a part of it begins. The kernel tells it from the root of the file system: that of
 * the volume if it has one of its own, else one that the volume is somewhere in.
 */
function placeOf(mount: HostMount, volume: HostMount | undefined, directory: string): string {
  const root = mount.root.replace(/\/\/deleted$/, '');
  if (volume !== undefined && volume.device === mount.device) return root.slice(1);
  const [pod, tail] = [basename(join(directory, '../../..')), directory.split('/').slice(-3).join('/')];
  const marker = `/${pod}/${tail}/`;
  const at = `${root}/`.indexOf(marker);
  if (at >= 0) return root.slice(at + marker.length);
  throw new PodvmError('internal', `Cannot mount a sub-path: ${mount.point} is no part of ${directory}, got ${root}`);
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
