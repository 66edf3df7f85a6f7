import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { Params, VolumeParams } from '#wire/messages.ts';
import { mountFlags } from '../engine/constants.ts';
import { codeOf, type Engine } from '../engine/engine.ts';
import type { Disks } from './disks.ts';
import { Push } from './push.ts';

type Parts = Engine;

const volumesDirectory = '/run/podvm/volumes';
const maxPushes = 16;
const firstProject = 1000;

interface Volume {
  readonly params: VolumeParams;
  readonly root: string;
  readonly project: number;
}

/** The pod's volumes in the guest. A container mounts `root` or something below it. */
export class Volumes {
  readonly #parts: Parts;
  readonly #disks: Disks;
  readonly #volumes = new Map<string, Volume>();
  readonly #pushes = new Map<number, Push>();
  #pushCount = 0;
  #projectCount = 0;

  constructor(parts: Parts, disks: Disks) {
    this.#parts = parts;
    this.#disks = disks;
  }

  /** Errors: `alreadyExists`, `exhausted`, `invalid`, `notFound` (disk). On any error nothing of it is left. */
  create(params: VolumeParams): void {
    const { name } = params;
    if (this.#volumes.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it is there`);
    if (this.#volumes.size >= limits.maxVolumes) {
      throw new PodvmError('exhausted', `Cannot create volume ${name}: ${limits.maxVolumes} are there`);
    }
    const volume = { params, root: this.#rootOf(params), project: firstProject + this.#projectCount };
    try {
      this.#make(volume);
    } catch (error) {
      this.#discard(volume);
      throw error;
    }
    this.#projectCount += 1;
    this.#volumes.set(name, volume);
  }

  /** Errors: `notFound`, `busy` while a container has it mounted (tmpfs). */
  remove(name: string): void {
    const volume = this.#get(name);
    this.#discard(volume);
    for (const [number, push] of this.#pushes) if (push.volume === name) this.#pushes.delete(number);
    this.#volumes.delete(name);
  }

  /** Directory of the volume. Errors: `notFound`. */
  root(name: string): { readonly path: string; readonly fsGroup: number | undefined } {
    const { root, params } = this.#get(name);
    return { path: root, fsGroup: params.fsGroup };
  }

  beginPush(name: string): { push: number } {
    const { root, params } = this.#get(name);
    if (params.kind !== 'push') throw new PodvmError('invalid', `Cannot push to volume ${name}: it is a ${params.kind} volume`);
    if (this.#pushes.size >= maxPushes) throw new PodvmError('exhausted', `Cannot push: ${maxPushes} pushes are under way`);
    this.#pushCount += 1;
    const number = this.#pushCount;
    this.#pushes.set(number, new Push(this.#parts, { volume: name, root, number, fsGroup: params.fsGroup }));
    return { push: number };
  }

  pushFile({ push, path, mode, data }: Params<'pushFile'>): void {
    this.#push(push).add(path, mode, data);
  }

  commitPush(number: number): void {
    this.#push(number).commit();
    this.#pushes.delete(number);
  }

  abortPush(number: number): void {
    this.#push(number).abort();
    this.#pushes.delete(number);
  }

  #push(number: number): Push {
    const push = this.#pushes.get(number);
    if (push === undefined) throw new PodvmError('notFound', `Cannot push: no push ${number}`);
    return push;
  }

  #get(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new PodvmError('notFound', `Cannot use volume ${name}: there is none`);
    return volume;
  }

  #rootOf({ name, kind, disk }: VolumeParams): string {
    if (kind !== 'scratch') return `${volumesDirectory}/${name}`;
    if (disk === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: no disk is named`);
    return `${this.#disks.get(disk).mountPoint}/volumes/${name}`;
  }

  #make({ params, root, project }: Volume): void {
    const { kind, mode = 0o777, fsGroup, sizeLimitBytes } = params;
    this.#parts.makeDirectories(root);
    if (kind === 'tmpfs') {
      const size = sizeLimitBytes === undefined || sizeLimitBytes === 0 ? '' : `,size=${sizeLimitBytes}`;
      this.#parts.mount('tmpfs', root, 'tmpfs', mountFlags.noSuid | mountFlags.noDevices, `mode=0777${size}`);
    }
    if (kind === 'scratch' && sizeLimitBytes !== undefined && sizeLimitBytes > 0 && params.disk !== undefined) {
      this.#limit(root, this.#disks.get(params.disk).device, project, sizeLimitBytes);
    }
    if (fsGroup !== undefined) this.#parts.changeOwner(root, -1, fsGroup);
    this.#parts.changeMode(root, kind === 'push' ? mode & 0o755 : fsGroup === undefined ? mode : mode | 0o2070);
  }

  #limit(root: string, device: string, project: number, sizeLimitBytes: number): void {
    try {
      this.#parts.setProject(root, project);
      this.#parts.setProjectQuota(device, project, sizeLimitBytes);
    } catch (error) {
      const code = codeOf(error);
      // A disk made without the project feature: the size is then bounded by the disk alone.
      if (code !== 'ESRCH' && code !== 'EOPNOTSUPP' && code !== 'ENOTTY' && code !== 'ENOSYS' && code !== 'EINVAL') throw error;
      this.#parts.print(`volume: no quota on this disk (${code}), sizeLimit is not enforced`);
    }
  }

  #discard({ params, root }: Volume): void {
    if (this.#parts.status(root) === undefined) return;
    if (params.kind === 'tmpfs') {
      try {
        this.#parts.unmount(root, 0);
      } catch (error) {
        if (codeOf(error) === 'EBUSY') throw new PodvmError('busy', `Cannot remove volume ${params.name}: it is in use`);
        if (codeOf(error) !== 'EINVAL') throw error; // EINVAL: it was never mounted
      }
    }
    this.#parts.removeTree(root);
  }
}
