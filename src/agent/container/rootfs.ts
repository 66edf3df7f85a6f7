import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Answer } from '#wire/messages.ts';
import { capabilities, mountFlags, open, unmountFlags } from '#engine/constants.ts';
import {
  codeOf,
  descriptorPath,
  type Beneath,
  type Descriptors,
  type Files,
  type Kernel,
  type Mounts,
} from '#engine/engine.ts';
import type { Disks } from '../volume/disks.ts';
import type { Project, Projects, Space } from '../volume/projects.ts';
import type { Volumes } from '../volume/volumes.ts';
import { makeImageVolumes } from './image-volumes.ts';
import { cleanPath, type OciMount, parentsFirst } from './mount-order.ts';
import type { PodUsers } from './pod-users.ts';

type Parts = Files & Mounts & Beneath & Descriptors & Pick<Kernel, 'setCapability'>;

const containersRoot = '/run/podvm/containers';
export const etcRoot = '/run/podvm/etc';

/** A container's directories in the guest: its bundle, and its writable layer on the scratch disk or in memory. */
export class Rootfs {
  readonly bundle: string;
  /** Descriptor of the merged root, for resolving paths beneath it. */
  readonly rootFd: number;
  readonly #parts: Parts;
  readonly #projects: Projects;
  readonly #users: PodUsers | undefined;
  readonly #layer: string;
  /** Project of the layer, if it is on a disk. */
  readonly #project: Project | undefined;
  /** Mounts of sub-paths, which pin the resolved directories until crun has mounted them. */
  readonly #pinned: string[] = [];

  /** Mounts the overlay. Errors: `notFound` (disk), `failedPrecondition`. */
  constructor(
    parts: Parts,
    disks: Pick<Disks, 'mapped' | 'path' | 'device'>,
    projects: Projects,
    params: ContainerParams,
    users: PodUsers | undefined,
  ) {
    this.#parts = parts;
    this.#projects = projects;
    this.#users = users;
    this.bundle = `${containersRoot}/${params.id}`;
    // An overlay does not map users itself, but uses the owners that its layers show (overlayfs, "Permission model").
    const lower = disks.mapped(params.imageDisk);
    const scratch = params.scratchDisk === undefined ? '/run/podvm/layers' : `${disks.path(params.scratchDisk)}/layers`;
    this.#layer = `${scratch}/${params.id}`;
    parts.removeTree(this.#layer); // removes the layer of an earlier container with the same id
    parts.makeDirectories(this.#layer);
    const { scratchDisk: disk, layerLimitBytes } = params;
    this.#project = disk === undefined ? undefined : projects.assign(disks.device(disk), this.#layer, layerLimitBytes);
    for (const directory of [`${this.bundle}/rootfs`, `${this.#layer}/upper`, `${this.#layer}/work`])
      parts.makeDirectories(directory);
    parts.changeMode(`${this.#layer}/upper`, parts.status(lower)?.mode ?? 0o755);
    users?.own(`${this.#layer}/upper`);
    const layers = `lowerdir=${lower},upperdir=${this.#layer}/upper,workdir=${this.#layer}/work`;
    // An overlay writes with the rights of its mounter (overlayfs.rst, "Permission model"): with all of the agent's, no limit
    // would apply to any container.
    parts.setCapability(capabilities.systemResource, false);
    try {
      parts.mount('overlay', `${this.bundle}/rootfs`, 'overlay', 0, layers);
    } catch (cause) {
      throw new PodvmError('failedPrecondition', `Cannot mount the container's root: ${codeOf(cause)}`, { cause });
    } finally {
      parts.setCapability(capabilities.systemResource, true);
    }
    this.rootFd = parts.open(`${this.bundle}/rootfs`, open.path | open.directory);
    parts.writeFile(this.terminationLog, '', 0o666);
    users?.own(this.terminationLog);
  }

  get terminationLog(): string {
    return `${this.bundle}/termination-log`;
  }

  /** Space that the container has used; undefined if its layer is in memory. */
  use(): Space | undefined {
    return this.#project === undefined ? undefined : this.#projects.use(this.#project);
  }

  /** Space of the file system that the container writes to, with its own limit; undefined if its layer is in memory. */
  space(): Answer<'metrics'>['layer'] {
    const use = this.use();
    if (use === undefined || this.#project === undefined) return undefined;
    const { totalBytes, totalInodes, freeInodes } = this.#parts.space(this.#layer);
    const device = this.#project.device.replace('/dev/', '');
    return { ...use, device, limitBytes: totalBytes, totalInodes, freeInodes };
  }

  /** Mounts of the container's volumes and files, in mount order. Errors: `notFound`, `invalid` (sub-path). */
  mounts(params: ContainerParams, volumes: Volumes): OciMount[] {
    const bind = (source: string, destination: string, readOnly: boolean, more: readonly string[] = []): OciMount => ({
      destination,
      type: 'bind',
      source,
      options: ['rbind', 'rprivate', readOnly ? 'ro' : 'rw', ...more],
    });
    const wanted = new Set(params.mounts.map(({ destination }) => cleanPath(destination)));
    const files = ['hosts', 'hostname', 'resolv.conf'].filter((name) => !wanted.has(`/etc/${name}`));
    return parentsFirst([
      ...this.#imageVolumes(params).map((path) => bind(`${this.bundle}/rootfs${path}`, path, false)),
      ...files.map((name) => bind(`${etcRoot}/${name}`, `/etc/${name}`, params.readOnlyRootfs)),
      ...params.mounts.map(({ volume, subPath, destination, readOnly }) =>
        bind(
          this.#source(volumes, volume, subPath),
          destination,
          readOnly,
          volumes.isImage(volume) ? ['nosuid', 'nodev', 'noexec'] : [],
        ),
      ),
      ...(params.terminationLogPath === undefined ? [] : [bind(this.terminationLog, params.terminationLogPath, false)]),
    ]);
  }

  /**
   * Directories of the image that stay writable in a read-only root: mounts of the same overlay onto themselves, so
   * that a container writes to its layer, over the image's content, without a copy. A writable root does not need them.
   */
  #imageVolumes({ imageVolumes = [], mounts, readOnlyRootfs }: ContainerParams): string[] {
    const root = { fd: this.rootFd, path: `${this.bundle}/rootfs`, own: (path: string) => this.#users?.own(path) };
    const destinations = mounts.map(({ destination }) => cleanPath(destination));
    const made = imageVolumes.length === 0 ? [] : makeImageVolumes(this.#parts, root, imageVolumes, destinations);
    return readOnlyRootfs ? made : [];
  }

  /** Called when crun has made its mounts. */
  unpin(): void {
    for (const source of this.#pinned.splice(0)) this.#parts.unmount(source, unmountFlags.detach);
  }

  remove(): void {
    this.unpin();
    this.#parts.close(this.rootFd);
    this.#parts.unmount(`${this.bundle}/rootfs`, unmountFlags.detach);
    this.#parts.removeTree(this.bundle);
    this.#parts.removeTree(this.#layer);
  }

  /**
   * Resolves a sub-path inside its volume and pins it by a mount, so that no symlink leads out of the volume, even one
   * that is made later.
   */
  #source(volumes: Volumes, volume: string, subPath: string | undefined): string {
    if (subPath === undefined) return volumes.mapped(volume);
    if (subPath.startsWith('/') || subPath.split('/').includes('..')) {
      throw new PodvmError('invalid', 'Cannot mount a sub-path: it must be relative and without ".."');
    }
    let fd = this.#beneath(volumes.mapped(volume), subPath);
    if (fd === undefined && volumes.isImage(volume)) {
      const what = printable(subPath);
      throw new PodvmError('invalid', `ImageVolumeMountFailed: Cannot mount a sub-path: the image has no ${what}`);
    }
    if (fd === undefined) {
      this.#makeSubPath(volumes.path(volume), subPath);
      fd = this.#beneath(volumes.mapped(volume), subPath);
    }
    if (fd === undefined) throw new PodvmError('notFound', 'Cannot mount a sub-path: it was removed meanwhile');
    try {
      return this.#pin(fd);
    } finally {
      this.#parts.close(fd);
    }
  }

  /** Works as root, which a mapped view may not know, with the mode of the volume, as kubelet does on its host. */
  #makeSubPath(volume: string, subPath: string): void {
    try {
      const made = this.#within(volume, (root) =>
        this.#parts.makeDirectoriesBeneath(root, subPath, this.#parts.statusOf(root).mode & 0o7777),
      );
      this.#parts.close(made);
    } catch (cause) {
      throw unusable(subPath, cause);
    }
  }

  /**
   * Pins a directory by a mount, since a descriptor of the agent has no effect in the mount namespace that crun makes.
   */
  #pin(fd: number): string {
    const source = `${this.bundle}/sub-paths/${this.#pinned.length}`;
    if (this.#parts.statusOf(fd).kind === 'directory') this.#parts.makeDirectories(source);
    else {
      this.#parts.makeDirectories(`${this.bundle}/sub-paths`);
      this.#parts.writeFile(source, '');
    }
    this.#parts.mount(descriptorPath(fd), source, '', mountFlags.bind | mountFlags.recursive, '');
    this.#pinned.push(source);
    return source;
  }

  #beneath(volume: string, subPath: string): number | undefined {
    try {
      return this.#within(volume, (root) => this.#parts.openBeneath(root, subPath, open.path));
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw unusable(subPath, error);
    }
  }

  #within(directory: string, work: (root: number) => number): number {
    const root = this.#parts.open(directory, open.path | open.directory);
    try {
      return work(root);
    } finally {
      this.#parts.close(root);
    }
  }
}

/** Reasons why a sub-path cannot be opened or made, by the error. Links in it are followed inside the volume only. */
const unusableWords: Readonly<Record<string, string>> = {
  ENOENT: 'a link in it leads to a path that the volume does not have; links are followed inside the volume only',
  ENOTDIR: 'a part of it is not a directory',
  ELOOP: 'its links lead in a circle',
};

function unusable(subPath: string, cause: unknown): unknown {
  const why = unusableWords[codeOf(cause) ?? ''];
  if (why === undefined) return cause;
  return new PodvmError('invalid', `Cannot mount the sub-path ${printable(subPath)}: ${why}`, { cause });
}

/** Writes /etc/hosts, /etc/hostname and /etc/resolv.conf of every container. Returns their paths in the guest. */
export function writeEtcFiles(parts: Files, files: { hosts: string; hostname: string; resolvConf: string }): string[] {
  parts.makeDirectories(etcRoot);
  const texts = { hosts: files.hosts, hostname: `${files.hostname}\n`, 'resolv.conf': files.resolvConf };
  return Object.entries(texts).map(([name, text]) => {
    parts.writeFile(`${etcRoot}/${name}`, text);
    return `${etcRoot}/${name}`;
  });
}
