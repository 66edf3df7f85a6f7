import { PodvmError } from '#base/errors.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Files } from '#engine/engine.ts';
import type { Disks } from '../volume/disks.ts';
import type { PodUsers } from './pod-users.ts';
import type { ResolvedUser } from './users.ts';

/** The kernel loads the driver when the device is opened (Documentation/admin-guide/devices.txt). */
export const tunDevice = { path: '/dev/net/tun', type: 'c', major: 10, minor: 200, fileMode: 0o666 } as const;

/** A device of OCI's `linux.devices`. */
export interface DeviceNode {
  readonly path: string;
  readonly type: 'c' | 'b';
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** A rule of OCI's `linux.resources.devices`. */
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
  /** Whether the rules refuse all but what crun allows every container (`device-program.ts`). */
  readonly areUsual: boolean;
}

export interface ContainerOfDevices {
  readonly params: ContainerParams;
  readonly user: ResolvedUser;
  /** Set for a pod with a user namespace. */
  readonly users: PodUsers | undefined;
}

/**
 * A container's devices: the disks given to it, which it may use but not make; with CAP_NET_ADMIN, /dev/net/tun; for a
 * privileged one, everything but the channel to the host. Errors: `notFound` (disk), `unsupported`.
 */
export function containerDevices(
  files: Files,
  disks: Pick<Disks, 'deviceNumbers'>,
  { params, user, users }: ContainerOfDevices,
): ContainerDevices {
  const wanted = params.devices ?? [];
  if (users !== undefined && wanted.length > 0) {
    // crun cannot make nodes there, and a bound one would belong to the guest's root.
    throw new PodvmError('unsupported', 'Cannot give a device to a container with a user namespace');
  }
  const given = wanted.map(({ disk, path, readOnly }): DeviceNode => {
    const mode = { fileMode: readOnly ? 0o440 : 0o660, uid: user.uid, gid: user.gid };
    return { path, type: 'b', ...disks.deviceNumbers(disk), ...mode };
  });
  const own = wanted.map(({ disk, readOnly }): DeviceRule => {
    return { allow: true, type: 'b', ...disks.deviceNumbers(disk), access: readOnly ? 'r' : 'rw' };
  });
  const tun = params.process.capabilities.includes('CAP_NET_ADMIN') ? [tunDevice] : [];
  if (!params.privileged) {
    const tunRules = tun.map(({ type, major, minor }): DeviceRule => ({
      allow: true,
      type,
      major,
      minor,
      access: 'rwm',
    }));
    const rules = [{ allow: false, access: 'rwm' }, ...tunRules, ...own];
    return { nodes: [...tun, ...given], rules, areUsual: own.length === 0 };
  }
  const majors = channelMajors(files);
  const refused = majors.map((major): DeviceRule => ({ allow: false, type: 'c', major, access: 'rwm' }));
  const others = [...tun, ...given];
  const paths = new Set(others.map(({ path }) => path));
  return {
    nodes: [...allDevices(files, majors, users).filter(({ path }) => !paths.has(path)), ...others],
    rules: [{ allow: true, access: 'rwm' }, ...refused],
    areUsual: false,
  };
}

/** Major numbers of the channel to the host, which no container gets. */
function channelMajors(files: Files): number[] {
  const lines = files.readText('/proc/devices', 16 * 1024).split('\n');
  return lines.filter((line) => line.includes('virtio-portsdev')).map((line) => Number.parseInt(line, 10));
}

/**
 * Returns all devices except forbidden ones. With a user namespace, crun gives nodes to the pod's users, so those that
 * only the guest's root may use are left out.
 */
function allDevices(files: Files, forbiddenMajors: readonly number[], users: PodUsers | undefined): DeviceNode[] {
  const paths = files.list('/dev').flatMap((name) => {
    const path = `/dev/${name}`;
    const isDirectory = !ownDirectories.has(name) && files.status(path)?.kind === 'directory';
    return isDirectory ? files.list(path).map((below) => `${path}/${below}`) : [path];
  });
  return paths.flatMap((path) => {
    if (containersOwn.has(path)) return [];
    return deviceAt(files, path).filter(({ type, major, fileMode }) => {
      const isForbidden = type === 'c' && forbiddenMajors.includes(major);
      return !isForbidden && (users === undefined || (fileMode & 0o006) === 0o006);
    });
  });
}

/** Directories of which every container has its own. */
const ownDirectories: ReadonlySet<string> = new Set(['mqueue', 'pts', 'shm']);
const containersOwn: ReadonlySet<string> = new Set(['/dev/console', '/dev/ptmx', '/dev/tty']);

/** Returns an empty list if there is no device. */
function deviceAt(files: Files, path: string): DeviceNode[] {
  const status = files.status(path);
  if (status === undefined || (status.kind !== 'characterDevice' && status.kind !== 'blockDevice')) return [];
  const type = status.kind === 'blockDevice' ? 'b' : 'c';
  return [{ path, type, major: status.major, minor: status.minor, fileMode: status.mode }];
}
