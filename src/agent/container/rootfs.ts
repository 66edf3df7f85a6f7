import type { ContainerParams } from '#wire/messages.ts';
import { mountFlags, open, unmountFlags } from '../engine/constants.ts';
import { codeOf, descriptorPath, type Engine } from '../engine/engine.ts';
import type { Disks } from '../volume/disks.ts';
import type { Volumes } from '../volume/volumes.ts';
import type { Container } from './container.ts';
import { directoryFlags } from './crun.ts';
import type { OciMount } from './oci-config.ts';

type Parts = Engine;

/** Where the writable layer of a container is. */
export function layerDirectory(disks: Disks, id: string, scratchDisk: string | undefined): string {
  const place = scratchDisk === undefined ? '/run/podvm' : disks.get(scratchDisk).mountPoint;
  return `${place}/layers/${id}`;
}

/** Mounts image and writable layer at `<bundle>/rootfs`. Errors: `notFound` (disk), SystemError. */
export function mountRootfs(parts: Parts, disks: Disks, container: Container, params: ContainerParams): void {
  const lower = disks.get(params.imageDisk).mountPoint;
  const layer = layerDirectory(disks, params.id, params.scratchDisk);
  parts.makeDirectories(`${layer}/upper`);
  parts.makeDirectories(`${layer}/work`);
  const rootfs = `${container.bundle}/rootfs`;
  parts.makeDirectories(rootfs);
  parts.mount('overlay', rootfs, 'overlay', 0, `lowerdir=${lower},upperdir=${layer}/upper,workdir=${layer}/work`);
  container.mountPoints.push(rootfs);
}

/** Volumes and the pod's files as mounts of the container. `podFiles`: directory of hosts, hostname, resolv.conf. */
export function volumeMounts(
  parts: Parts,
  volumes: Volumes,
  container: Container,
  params: ContainerParams,
  podFiles: string,
): OciMount[] {
  const mounts: OciMount[] = params.mounts.map((mount, index) => {
    const { path, fsGroup } = volumes.root(mount.volume);
    const source =
      mount.subPath === undefined
        ? path
        : bindSubPath(parts, container, { root: path, subPath: mount.subPath, index, fsGroup });
    return bind(source, mount.destination, mount.readOnly);
  });
  const has = (destination: string) => mounts.some((mount) => mount.destination === destination);
  for (const name of ['hosts', 'hostname', 'resolv.conf']) {
    if (!has(`/etc/${name}`)) mounts.push(bind(`${podFiles}/${name}`, `/etc/${name}`, params.readOnlyRootfs));
  }
  if (params.terminationLogPath !== undefined && !has(params.terminationLogPath)) {
    const log = terminationLog(container);
    parts.writeFile(log, '', 0o666);
    mounts.push(bind(log, params.terminationLogPath, false));
  }
  return mounts;
}

export const terminationLog = (container: Container): string => `${container.bundle}/termination-log`;

/** Unmounts and removes all files of a container. What is already gone is no error. */
export function removeRootfs(parts: Parts, disks: Disks, container: Container): void {
  for (let point = container.mountPoints.at(-1); point !== undefined; point = container.mountPoints.at(-1)) {
    try {
      parts.unmount(point, unmountFlags.detach);
    } catch (error) {
      if (codeOf(error) !== 'EINVAL' && codeOf(error) !== 'ENOENT') throw error;
    }
    container.mountPoints.pop();
  }
  parts.removeTree(container.bundle);
  parts.removeTree(layerDirectory(disks, container.id, container.params.scratchDisk));
}

const bind = (source: string, destination: string, readOnly: boolean): OciMount => ({
  destination,
  type: 'bind',
  source,
  options: ['rbind', 'rprivate', readOnly ? 'ro' : 'rw'],
});

interface SubPath {
  readonly root: string;
  readonly subPath: string;
  readonly index: number;
  readonly fsGroup: number | undefined;
}

/**
 * A volume's content belongs to containers, which may put a symlink in the way: the path is resolved beneath the
 * volume's root, and what was found is bound by descriptor to a place of ours (CVE-2017-1002101 was the other way).
 */
function bindSubPath(parts: Parts, container: Container, { root, subPath, index, fsGroup }: SubPath): string {
  const rootFd = parts.open(root, directoryFlags);
  let fd = -1;
  try {
    fd = openOrMake(parts, rootFd, subPath, fsGroup);
    const point = `${container.bundle}/sub${index}`;
    if (parts.statusOf(fd).kind === 'directory') parts.makeDirectories(point);
    else parts.writeFile(point, '');
    parts.mount(descriptorPath(fd), point, '', mountFlags.bind | mountFlags.recursive, '');
    container.mountPoints.push(point);
    return point;
  } finally {
    parts.close(rootFd);
    if (fd >= 0) parts.close(fd);
  }
}

function openOrMake(parts: Parts, rootFd: number, subPath: string, fsGroup: number | undefined): number {
  try {
    return parts.openBeneath(rootFd, subPath, open.path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  const fd = parts.makeDirectoriesBeneath(rootFd, subPath, 0o777);
  if (fsGroup !== undefined) parts.changeOwnerOf(fd, -1, fsGroup);
  return fd;
}
