import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { limits } from '#wire/limits.ts';
import type { VolumeParams } from '#wire/messages.ts';
import { mountFlags, unmountFlags } from '../engine/constants.ts';
import type { Clock, Files, Mounts, Text } from '../engine/engine.ts';
import { giveToGroup } from './group.ts';
import type { Disks } from './disks.ts';
import type { MappedViews } from './mapped-views.ts';
import type { Shares } from './shares.ts';

type Parts = Clock & Files & Mounts & Pick<Text, 'decodeBase64'>;

const volumesRoot = '/run/podvm/volumes';
const defaultMode = 0o777;
const maxPushes = 16;

interface Volume {
  readonly params: VolumeParams;
  readonly path: string;
  readonly isMounted: boolean;
}

interface Push {
  readonly volume: Volume;
  /** Name of the new version's directory in the volume. */
  readonly version: string;
  bytes: number;
}

/** Where volumes are, and how a pod's users see them. */
export interface VolumesNeeds {
  readonly disks: Disks;
  readonly shares: Shares;
  readonly views: MappedViews;
}

/** The pod's volumes, by name. */
export class Volumes {
  readonly #parts: Parts;
  readonly #disks: Disks;
  readonly #shares: Shares;
  readonly #views: MappedViews;
  readonly #volumes = new Map<string, Volume>();
  readonly #pushes = new Map<number, Push>();
  #lastPush = 0;

  constructor(parts: Parts, { disks, shares, views }: VolumesNeeds) {
    this.#parts = parts;
    this.#disks = disks;
    this.#shares = shares;
    this.#views = views;
  }

  /** Directory of the volume. Errors: `notFound`. */
  path(name: string): string {
    return this.#shares.path(name) ?? this.#find(name).path;
  }

  /** The same, as the pod's users see it. Errors: `notFound`, `failedPrecondition`. */
  mapped(name: string): string {
    return this.#views.of(this.path(name));
  }

  /** Errors: `alreadyExists`, `exhausted`, `invalid`, `notFound` (disk), those of `Shares.attach`. */
  async create(params: VolumeParams): Promise<void> {
    const { name, kind, disk, sizeLimitBytes, mode = defaultMode, fsGroup } = params;
    if (this.#volumes.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it exists`);
    if (this.#volumes.size >= limits.maxVolumes) throw new PodvmError('exhausted', 'Cannot create volume: too many');
    if (kind === 'share') return await this.#shares.attach(params);
    if (kind === 'disk') return await this.#takeDisk(params);
    const path = kind === 'scratch' ? `${this.#scratch(name, disk)}/volumes/${name}` : `${volumesRoot}/${name}`;
    this.#parts.makeDirectories(path);
    const isMounted = kind !== 'scratch';
    if (isMounted) {
      const size = kind === 'push' ? limits.maxPushVolumeBytes * 3 : sizeLimitBytes; // old, new, and room for tables
      const flags = mountFlags.noSuid | mountFlags.noDevices;
      this.#parts.mount('tmpfs', path, 'tmpfs', flags, size === undefined ? '' : `size=${size}`);
    }
    // Of an fsGroup the volume and all that is made in it belong to the group: the set-group-id bit hands it down.
    this.#parts.changeOwner(path, 0, fsGroup ?? 0);
    this.#parts.changeMode(path, fsGroup === undefined ? mode : mode | 0o2070);
    this.#volumes.set(name, { params, path, isMounted });
  }

  /** Errors: those of `Shares.detach`. */
  async remove(name: string): Promise<void> {
    await this.#shares.detach(name);
    const volume = this.#volumes.get(name);
    if (volume === undefined) return;
    this.#volumes.delete(name);
    this.#views.drop(volume.path);
    if (volume.isMounted) this.#parts.unmount(volume.path, unmountFlags.detach);
    if (volume.params.kind !== 'disk') this.#parts.removeTree(volume.path);
  }

  beginPush(name: string): number {
    const volume = this.#find(name);
    if (volume.params.kind !== 'push')
      throw new PodvmError('invalid', `Cannot push to volume ${name}: it is none of push`);
    if (this.#pushes.size >= maxPushes) throw new PodvmError('exhausted', 'Cannot push: too many pushes at a time');
    this.#lastPush += 1;
    // Kubelet's layout: a directory named after the moment, and `..data` pointing to the current one.
    const version = `..${new Date(this.#parts.realtimeMs()).toISOString().replace(/[-:TZ]/g, '_')}.${this.#lastPush}`;
    this.#parts.makeDirectory(`${volume.path}/${version}`, 0o755);
    this.#own(volume, `${volume.path}/${version}`);
    this.#pushes.set(this.#lastPush, { volume, version, bytes: 0 });
    return this.#lastPush;
  }

  /** A part of one file, at its end. Errors: `invalid` (path, encoding), `exhausted`. */
  pushFile(id: number, path: string, mode: number, data: string): void {
    const push = this.#push(id);
    const names = path.split('/');
    if (names.some((name) => name === '' || name === '.' || name === '..' || name.includes('\0'))) {
      throw new PodvmError('invalid', `Cannot push ${printable(path)}: it leads out of the volume`);
    }
    const bytes = this.#parts.decodeBase64(data);
    push.bytes += bytes.length;
    if (push.bytes > limits.maxPushVolumeBytes) {
      throw new PodvmError('exhausted', `Cannot push to volume: it is over ${limits.maxPushVolumeBytes} bytes`);
    }
    let directory = `${push.volume.path}/${push.version}`;
    for (const name of names.slice(0, -1)) {
      directory += `/${name}`;
      if (this.#parts.status(directory) !== undefined) continue;
      this.#parts.makeDirectory(directory, 0o755);
      this.#own(push.volume, directory);
    }
    const file = `${directory}/${names.at(-1) ?? ''}`;
    const before =
      this.#parts.status(file) === undefined
        ? new Uint8Array(0)
        : this.#parts.readFile(file, limits.maxPushVolumeBytes);
    const whole = new Uint8Array(before.length + bytes.length);
    whole.set(before);
    whole.set(bytes, before.length);
    this.#parts.writeFile(file, whole, push.volume.params.fsGroup === undefined ? mode : mode | ((mode & 0o500) >> 3));
    this.#own(push.volume, file);
  }

  commitPush(id: number): void {
    const push = this.#push(id);
    const { path } = push.volume;
    const current = `${path}/..data`;
    const old = this.#parts.status(current) === undefined ? undefined : this.#parts.readLink(current);
    this.#parts.symlink(push.version, `${path}/..data_tmp`);
    this.#parts.rename(`${path}/..data_tmp`, current);
    const names = new Set(this.#parts.list(`${path}/${push.version}`));
    for (const name of names) {
      if (this.#parts.status(`${path}/${name}`) === undefined) this.#parts.symlink(`..data/${name}`, `${path}/${name}`);
    }
    for (const name of this.#parts.list(path)) {
      if (!name.startsWith('..') && !names.has(name)) this.#parts.removeFile(`${path}/${name}`);
    }
    if (old !== undefined) this.#parts.removeTree(`${path}/${old}`);
    this.#pushes.delete(id);
  }

  abortPush(id: number): void {
    const push = this.#pushes.get(id);
    if (push === undefined) return;
    this.#pushes.delete(id);
    this.#parts.removeTree(`${push.volume.path}/${push.version}`);
  }

  #own(volume: Volume, path: string): void {
    if (volume.params.fsGroup !== undefined) this.#parts.changeOwner(path, 0, volume.params.fsGroup);
  }

  /** The whole of a disk, with what is on it. */
  async #takeDisk(params: VolumeParams): Promise<void> {
    const { name, disk, fsGroup } = params;
    if (disk === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: it needs a disk`);
    const path = this.#disks.path(disk);
    if (fsGroup !== undefined) await giveToGroup(this.#parts, path, fsGroup);
    this.#volumes.set(name, { params, path, isMounted: false });
  }

  #scratch(name: string, disk: string | undefined): string {
    if (disk === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: scratch needs a disk`);
    return this.#disks.path(disk);
  }

  #find(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new PodvmError('notFound', `Cannot use volume ${name}: there is none of that name`);
    return volume;
  }

  #push(id: number): Push {
    const push = this.#pushes.get(id);
    if (push === undefined) throw new PodvmError('notFound', `Cannot push: there is no push ${id}`);
    return push;
  }
}
