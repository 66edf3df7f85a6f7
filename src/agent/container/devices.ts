import { PodvmError } from '#base/errors.ts';
import type { ContainerParams } from '#wire/messages.ts';
import type { Files } from '#engine/engine.ts';
import type { Disks } from '../volume/disks.ts';
import type { PodUsers } from './pod-users.ts';
import type { ResolvedUser } from './users.ts';

/** OCI's `linux.devices`. */
export interface DeviceNode {
  readonly path: string;
  readonly type: 'c' | 'b';
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** OCI's `linux.resources.devices`. */
export interface DeviceRule {
  readonly allow: boolean;
  readonly type?: 'c' | 'b';
  readonly major?: number;
  readonly minor?: number;
  readonly access: string;
}

export interface ContainerDevices {
  readonly nodes: readonly DeviceNode[];
  readonly rules: readonly DeviceRule[];
}

export interface ContainerOfDevices {
  readonly params: ContainerParams;
  readonly user: ResolvedUser;
  /** Of a pod with a user namespace. */
  readonly users: PodUsers | undefined;
}

/**
 * What a container has of the guest's devices: the disks it was given, to use and not to make anew; a privileged one has
 * all but the channel to the host. Errors: `notFound` (disk), `unsupported`.
 */
export function containerDevices(
  files: Files,
  disks: Disks,
  { params, user, users }: ContainerOfDevices,
): ContainerDevices {
  const wanted = params.devices ?? [];
  if (users !== undefined && wanted.length > 0) {
    // crun cannot make nodes there, and one that it binds would be the guest's root's.
    throw new PodvmError('unsupported', 'Cannot give a device to a container with a user namespace');
  }
  const given = wanted.map(({ disk, path, readOnly }): DeviceNode => {
    const mode = { fileMode: readOnly ? 0o440 : 0o660, uid: user.uid, gid: user.gid };
    return { path, type: 'b', ...disks.deviceNumbers(disk), ...mode };
  });
  const own = wanted.map(({ disk, readOnly }): DeviceRule => {
    return { allow: true, type: 'b', ...disks.deviceNumbers(disk), access: readOnly ? 'r' : 'rw' };
  });
  if (!params.privileged) return { nodes: given, rules: [{ allow: false, access: 'rwm' }, ...own] };
  const majors = channelMajors(files);
  const refused = majors.map((major): DeviceRule => ({ allow: false, type: 'c', major, access: 'rwm' }));
  const paths = new Set(given.map(({ path }) => path));
  return {
    nodes: [...allDevices(files, majors, users).filter(({ path }) => !paths.has(path)), ...given],
    rules: [{ allow: true, access: 'rwm' }, ...refused],
  };
}

/** Major numbers of devices nobody gets: the channel to the host. */
function channelMajors(files: Files): number[] {
  const lines = files.readText('/proc/devices', 16 * 1024).split('\n');
  return lines.filter((line) => line.includes('virtio-portsdev')).map((line) => Number.parseInt(line, 10));
}

/** To users of the pod's own, crun gives what it makes: what the guest's root keeps to itself is then left out. */
function allDevices(files: Files, forbiddenMajors: readonly number[], users: PodUsers | undefined): DeviceNode[] {
  return files.list('/dev').flatMap((name): DeviceNode[] => {
    const path = `/dev/${name}`;
    const status = files.status(path);
    if (status === undefined || (status.kind !== 'characterDevice' && status.kind !== 'blockDevice')) return [];
    if (status.kind === 'characterDevice' && forbiddenMajors.includes(status.major)) return [];
    if (users !== undefined && (status.mode & 0o006) !== 0o006) return [];
    if (name === 'console' || name === 'ptmx' || name === 'tty') return [];
    const type = status.kind === 'blockDevice' ? 'b' : 'c';
    return [{ path, type, major: status.major, minor: status.minor, fileMode: status.mode }];
  });
}
