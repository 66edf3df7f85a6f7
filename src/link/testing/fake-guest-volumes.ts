import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Params } from '#wire/messages.ts';
import type { VolumeParams } from '#wire/pod-params.ts';

type Disk = Params<'attachDisk'>;

interface Push {
  readonly volume: string;
  bytes: number;
}

const maxPushes = 16;

/** The hardware of a fake guest's machine; default: every requested part exists. */
export interface FakePlugs {
  readonly hasDisk?: (serial: string) => boolean;
  readonly hasPort?: (name: string) => boolean;
}

/** Disks, volumes and pushes of a fake guest: they exist or not, and hold no data. */
export class FakeGuestVolumes {
  readonly #options: FakePlugs;
  readonly #disks = new Map<string, Disk>();
  readonly #volumes = new Map<string, VolumeParams>();
  readonly #pushes = new Map<number, Push>();
  #lastPush = 0;

  constructor(options: FakePlugs) {
    this.#options = options;
  }

  get names(): string[] {
    return [...this.#volumes.keys()];
  }

  get serials(): string[] {
    return [...this.#disks.keys()];
  }

  attachDisk(disk: Disk): { phases: [] } {
    const { serial } = disk;
    if (this.#disks.has(serial))
      throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: it is attached already`);
    if (this.#options.hasDisk?.(serial) === false)
      throw new PodvmError('timeout', `Cannot attach disk ${serial}: it did not appear`);
    this.#disks.set(serial, disk);
    return { phases: [] };
  }

  detachDisk(serial: string): Record<string, never> {
    this.#disks.delete(serial);
    return {};
  }

  growDisk(serial: string): Record<string, never> {
    this.#find(serial);
    return {};
  }

  create(params: VolumeParams): Record<string, never> {
    const { name, kind, disk, port } = params;
    if (this.#volumes.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it exists`);
    if (this.#volumes.size >= limits.maxVolumes) throw new PodvmError('exhausted', 'Cannot create volume: too many');
    if (kind === 'share') {
      if (port === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: a share needs a port`);
      if (this.#options.hasPort?.(port) === false)
        throw new PodvmError('timeout', `Cannot create volume ${name}: its port does not appear`);
    }
    if (kind === 'scratch' || kind === 'block' || kind === 'image') {
      if (disk === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: it needs a disk`);
      this.#mounted(disk);
    }
    this.#volumes.set(name, params);
    return {};
  }

  remove(name: string): Record<string, never> {
    this.#volumes.delete(name);
    return {};
  }

  /** Checks that what a container mounts exists. Errors: `notFound`. */
  check({ imageDisk, scratchDisk, modulesDisk, mounts, devices = [] }: ContainerParams): void {
    for (const serial of [imageDisk, scratchDisk, modulesDisk]) if (serial !== undefined) this.#mounted(serial);
    for (const { volume } of mounts) this.#volume(volume);
    for (const { disk } of devices) {
      if (this.#find(disk).fileSystem !== 'none')
        throw new PodvmError('notFound', `Cannot use disk ${disk} as a device: it is mounted`);
    }
  }

  beginPush(volume: string): number {
    if (this.#volume(volume).kind !== 'push')
      throw new PodvmError('invalid', `Cannot push to volume ${volume}: its files are not pushed`);
    if (this.#pushes.size >= maxPushes) throw new PodvmError('exhausted', 'Cannot push: too many pushes at a time');
    this.#lastPush += 1;
    this.#pushes.set(this.#lastPush, { volume, bytes: 0 });
    return this.#lastPush;
  }

  pushFile({ push: id, path, data }: Params<'pushFile'>): Record<string, never> {
    const push = this.#push(id);
    if (path.split('/').some((name) => name === '' || name === '.' || name === '..' || name.includes('\0')))
      throw new PodvmError('invalid', `Cannot push ${path}: it leads out of the volume`);
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(data)) throw new PodvmError('internal', 'Cannot push a file: invalid base64');
    push.bytes += Buffer.from(data, 'base64').length;
    if (push.bytes > limits.maxPushVolumeBytes)
      throw new PodvmError('exhausted', `Cannot push to volume: it is over ${limits.maxPushVolumeBytes} bytes`);
    return {};
  }

  endPush(id: number): Record<string, never> {
    this.#push(id);
    return this.abortPush(id);
  }

  abortPush(id: number): Record<string, never> {
    this.#pushes.delete(id);
    return {};
  }

  #push(id: number): Push {
    const push = this.#pushes.get(id);
    if (push === undefined) throw new PodvmError('notFound', `Cannot push: there is no push ${id}`);
    return push;
  }

  #volume(name: string): VolumeParams {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new PodvmError('notFound', `Cannot use volume ${name}: there is none of that name`);
    return volume;
  }

  #mounted(serial: string): void {
    if (this.#find(serial).fileSystem === 'none')
      throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not mounted`);
  }

  #find(serial: string): Disk {
    const disk = this.#disks.get(serial);
    if (disk === undefined) throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not attached`);
    return disk;
  }
}
