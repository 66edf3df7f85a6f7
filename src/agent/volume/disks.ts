import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { Params } from '#wire/messages.ts';
import type { Guest } from '../boot/guest.ts';
import { mountFlags } from '../engine/constants.ts';
import { codeOf, type Clock, type Files, type Mounts } from '../engine/engine.ts';

type Parts = Files & Mounts & Clock;

const disksDirectory = '/run/podvm/disks';
const appearTimeoutMs = 10_000;
const pollMs = 5;

interface Disk {
  readonly device: string;
  readonly mountPoint: string;
  readonly fileSystem: 'erofs' | 'ext4';
}

/** Disks of the machine, by the serial the host gave them, and where they are mounted. */
export class Disks {
  readonly #parts: Parts;
  readonly #loadModule: Guest['loadModule'];
  readonly #disks = new Map<string, Disk>();
  readonly #attaching = new Set<string>();

  constructor(parts: Parts, loadModule: Guest['loadModule']) {
    this.#parts = parts;
    this.#loadModule = loadModule;
  }

  /** Errors: `alreadyExists`, `exhausted`, `notFound` when it does not appear, `corrupt` when it cannot be mounted. */
  async attach({ serial, fileSystem, readOnly }: Params<'attachDisk'>): Promise<{ phases: { name: string; ms: number }[] }> {
    if (this.#disks.has(serial) || this.#attaching.has(serial)) {
      throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: it is attached`);
    }
    if (this.#disks.size + this.#attaching.size >= limits.maxDisks) {
      throw new PodvmError('exhausted', `Cannot attach disk ${serial}: ${limits.maxDisks} are attached`);
    }
    this.#attaching.add(serial);
    try {
      const startedMs = this.#parts.monotonicMs();
      const device = await this.#waitFor(serial);
      const foundMs = this.#parts.monotonicMs();
      const mountPoint = `${disksDirectory}/${serial}`;
      this.#mount(device, mountPoint, fileSystem, readOnly);
      this.#disks.set(serial, { device, mountPoint, fileSystem });
      return {
        phases: [
          { name: 'appear', ms: foundMs - startedMs },
          { name: 'mount', ms: this.#parts.monotonicMs() - foundMs },
        ],
      };
    } finally {
      this.#attaching.delete(serial);
    }
  }

  /** Errors: `notFound`, `busy`. */
  detach(serial: string): void {
    const { mountPoint } = this.get(serial);
    try {
      this.#parts.unmount(mountPoint, 0);
    } catch (error) {
      if (codeOf(error) === 'EBUSY') throw new PodvmError('busy', `Cannot detach disk ${serial}: it is in use`);
      throw error;
    }
    this.#parts.removeDirectory(mountPoint);
    this.#disks.delete(serial);
  }

  /** Errors: `notFound`. */
  get(serial: string): Disk {
    const disk = this.#disks.get(serial);
    if (disk === undefined) throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not attached`);
    return disk;
  }

  /** Unmounts all that can be; what is still used is left to the power-off after `sync`. */
  detachAll(): void {
    for (const serial of this.#disks.keys()) {
      try {
        this.detach(serial);
      } catch (error) {
        if (!(error instanceof PodvmError)) throw error;
      }
    }
  }

  async #waitFor(serial: string): Promise<string> {
    const deadlineMs = this.#parts.monotonicMs() + appearTimeoutMs;
    for (;;) {
      const name = this.#find(serial);
      if (name !== undefined && this.#parts.status(`/dev/${name}`) !== undefined) return `/dev/${name}`;
      if (this.#parts.monotonicMs() > deadlineMs) {
        throw new PodvmError('notFound', `Cannot attach disk ${serial}: not there after ${appearTimeoutMs} ms`);
      }
      await new Promise<void>((resolve) => {
        this.#parts.setTimer(pollMs, resolve);
      });
    }
  }

  /** The vital product data page 0x80 holds the serial behind a header of 4 bytes (SPC-4, 7.8.20). */
  #find(serial: string): string | undefined {
    for (const name of this.#parts.list('/sys/block')) {
      if (!name.startsWith('sd')) continue;
      const file = `/sys/block/${name}/device/vpd_pg80`;
      try {
        if (this.#parts.readText(file, 1024).slice(4).trim() === serial) return name;
      } catch (error) {
        if (codeOf(error) === undefined) throw error;
      }
    }
    return undefined;
  }

  #mount(device: string, mountPoint: string, fileSystem: 'erofs' | 'ext4', readOnly: boolean): void {
    this.#loadModule(fileSystem);
    this.#parts.makeDirectories(mountPoint);
    const flags = (readOnly ? mountFlags.readOnly : 0) | mountFlags.noAccessTime;
    try {
      try {
        this.#parts.mount(device, mountPoint, fileSystem, flags, fileSystem === 'ext4' && !readOnly ? 'prjquota' : '');
      } catch (error) {
        if (fileSystem !== 'ext4' || codeOf(error) === undefined) throw error;
        this.#parts.mount(device, mountPoint, fileSystem, flags, ''); // made without the quota feature
      }
    } catch (error) {
      this.#parts.removeDirectory(mountPoint);
      throw new PodvmError('corrupt', `Cannot mount disk as ${fileSystem}: ${codeOf(error) ?? 'unknown'}`, { cause: error });
    }
  }
}
