import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { VolumeParams } from '#wire/pod-params.ts';
import { mountFlags, unmountFlags } from '#engine/constants.ts';
import type { Clock, Files, FileSystemSpace, Mounts } from '#engine/engine.ts';
import type { Disks } from './disks.ts';
import { giveToGroup } from './group.ts';
import type { MappedViews } from './mapped-views.ts';
import type { Project, Projects, Space } from './projects.ts';
import type { Shares } from './shares.ts';

type Parts = Clock & Files & Mounts;

const volumesRoot = '/run/podvm/volumes';
const defaultMode = 0o777;

export interface Volume {
  readonly params: VolumeParams;
  readonly path: string;
  readonly isMounted: boolean;
  /** Set for a directory on a disk. */
  readonly project: Project | undefined;
}

/** Parts of which volumes are made, with the views of a pod's users. */
export interface VolumesNeeds {
  readonly disks: Disks;
  readonly shares: Shares;
  readonly views: MappedViews;
  readonly projects: Projects;
}

/** The pod's volumes, by name. */
export class Volumes {
  readonly #parts: Parts;
  readonly #disks: Disks;
  readonly #shares: Shares;
  readonly #views: MappedViews;
  readonly #projects: Projects;
  readonly #volumes = new Map<string, Volume>();

  constructor(parts: Parts, { disks, shares, views, projects }: VolumesNeeds) {
    this.#parts = parts;
    this.#disks = disks;
    this.#shares = shares;
    this.#views = views;
    this.#projects = projects;
  }

  /** Directory of the volume. Errors: `notFound`. */
  path(name: string): string {
    return this.#shares.path(name) ?? this.find(name).path;
  }

  /** Errors: `notFound`. */
  find(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new PodvmError('notFound', `Cannot use volume ${name}: there is none of that name`);
    return volume;
  }

  /** Directory as the pod's users see it. Errors: `notFound`, `failedPrecondition`. */
  mapped(name: string): string {
    return this.#views.of(this.path(name));
  }

  get names(): string[] {
    return [...this.#volumes.keys()];
  }

  isImage(name: string): boolean {
    return this.#volumes.get(name)?.params.kind === 'image';
  }

  /** Errors: `alreadyExists`, `exhausted`, `invalid`, `notFound` (disk), those of `Shares.attach`. */
  async create(params: VolumeParams): Promise<void> {
    const { name, kind, mode = defaultMode, uid = 0, gid, fsGroup } = params;
    if (this.#volumes.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it exists`);
    if (this.#volumes.size >= limits.maxVolumes) throw new PodvmError('exhausted', 'Cannot create volume: too many');
    if (kind === 'share') return await this.#shares.attach(params);
    const volume = this.#make(params);
    this.#volumes.set(name, volume);
    if (kind === 'image') return; // keeps its owners and modes
    if (kind === 'block') return await this.#giveDisk(volume);
    // With an fsGroup the volume and its content belong to the group: the set-group-id bit passes it on.
    this.#parts.changeOwner(volume.path, uid, fsGroup ?? gid ?? 0);
    this.#parts.changeMode(volume.path, fsGroup === undefined ? mode : mode | 0o2070);
  }

  /** Errors: those of `Shares.detach`. */
  async remove(name: string): Promise<void> {
    const share = this.#shares.path(name);
    if (share !== undefined) this.#views.drop(share);
    await this.#shares.detach(name);
    const volume = this.#volumes.get(name);
    if (volume === undefined) return;
    this.#volumes.delete(name);
    if (volume.params.kind === 'image') return; // the disk stays, for other users of it
    this.#views.drop(volume.path);
    if (volume.isMounted) this.#parts.unmount(volume.path, unmountFlags.detach);
    if (volume.params.kind !== 'block') this.#parts.removeTree(volume.path); // the content of a block volume outlives the pod
  }

  /** Space used by each volume on a disk. */
  use(): ({ readonly name: string } & Space)[] {
    return [...this.#volumes].flatMap(([name, { project }]) => {
      const space = project === undefined ? undefined : this.#projects.use(project);
      return space === undefined ? [] : [{ name, ...space }];
    });
  }

  /** The file system, or the quota, of each volume that is not served by the host. */
  spaces(): ({ readonly name: string } & FileSystemSpace)[] {
    const own = [...this.#volumes].filter(([, { params }]) => params.kind !== 'image');
    return own.map(([name, { path }]) => ({ name, ...this.#parts.space(path) }));
  }

  #make(params: VolumeParams): Volume {
    switch (params.kind) {
      case 'scratch':
        return this.#makeOnDisk(params);
      case 'block':
      case 'image':
        return { params, path: this.#disks.path(diskOf(params)), isMounted: false, project: undefined };
      default:
        return this.#makeInMemory(params);
    }
  }

  #makeOnDisk(params: VolumeParams): Volume {
    const { name, sizeLimitBytes } = params;
    const disk = diskOf(params);
    const path = `${this.#disks.path(disk)}/volumes/${name}`;
    this.#parts.makeDirectories(path);
    const project = this.#projects.assign(this.#disks.device(disk), path, sizeLimitBytes);
    return { params, path, isMounted: false, project };
  }

  /** Gives all existing files of a disk to the group. */
  async #giveDisk({ params: { name, fsGroup }, path }: Volume): Promise<void> {
    if (fsGroup === undefined) return;
    try {
      await giveToGroup(this.#parts, path, fsGroup);
    } catch (error) {
      this.#volumes.delete(name);
      throw error;
    }
  }

  #makeInMemory(params: VolumeParams): Volume {
    const { name, kind, sizeLimitBytes } = params;
    const path = `${volumesRoot}/${name}`;
    this.#parts.makeDirectories(path);
    const size = kind === 'push' ? limits.maxPushVolumeBytes * 3 : sizeLimitBytes; // old, new, and room for tables
    const flags = mountFlags.noSuid | mountFlags.noDevices;
    this.#parts.mount('tmpfs', path, 'tmpfs', flags, size === undefined ? '' : `size=${size}`);
    return { params, path, isMounted: true, project: undefined };
  }
}

function diskOf({ name, disk }: VolumeParams): string {
  if (disk !== undefined) return disk;
  throw new PodvmError('invalid', `Cannot create volume ${name}: it needs a disk`);
}
