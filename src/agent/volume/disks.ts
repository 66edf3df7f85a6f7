import { PodvmError } from '#base/errors.ts';
import type { Params } from '#wire/messages.ts';
import { mountFlags, open } from '#engine/constants.ts';
import {
  codeOf,
  type Asides,
  type Clock,
  type Descriptors,
  type Files,
  type Mounts,
  type Text,
} from '#engine/engine.ts';
import { runAside } from '../process/aside.ts';
import { poll } from '../process/poll.ts';
import type { Children } from '../process/children.ts';
import { Phases, type Phase } from '#base/phases.ts';
import type { MappedViews } from './mapped-views.ts';

type Parts = Clock &
  Descriptors &
  Files &
  Mounts &
  Pick<Asides, 'mountAside'> &
  Pick<Text, 'decodeUtf8'> & { sync(): void };
type Waiting = Pick<Children, 'wait'>;
type FileSystem = 'erofs' | 'ext4' | 'none';

interface Disk {
  /** Name of the device: `sda`. */
  readonly name: string;
  readonly fileSystem: FileSystem;
  readonly readOnly: boolean;
}

const disksRoot = '/run/podvm/disks';
/** Time in which the kernel shows a disk or its new size; long, since a busy host may give the guest no processor. */
const deadlineMs = 60_000;
const pollMs = 5;
/** Time in which a process that has just ended releases its mounts. */
const busyMs = 2_000;
/** Time after which the kernel rescans for a disk's new size, if the VMM has not announced it. */
const rescanAfterMs = 500;
const sectorBytes = 512;
/**
 * Read at a time from a disk of files that do not change, in `KiB`. A program is read as it runs, and each request costs a
 * guest far more than its bytes: with the kernel's 128, a program of 50 MB made five times as many, and its start took a
 * quarter more processor time under emulation.
 */
const readAheadKiB = 1024;
const superblock = { offset: 1024, magicOffset: 56, magic: 0xef53 } as const;

/** The SCSI disks that the host attached, by serial; mounted, except those for use as devices. */
export class Disks {
  readonly #parts: Parts;
  readonly #views: MappedViews;
  readonly #children: Waiting;
  readonly #disks = new Map<string, Disk>();

  constructor(parts: Parts, views: MappedViews, children: Waiting) {
    this.#parts = parts;
    this.#views = views;
    this.#children = children;
  }

  /** Mount point of the disk. Errors: `notFound`. */
  path(serial: string): string {
    if (this.#find(serial).fileSystem === 'none')
      throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not mounted`);
    return `${disksRoot}/${serial}`;
  }

  /** Mount point as the pod's users see it. Errors: `notFound`, `failedPrecondition`. */
  mapped(serial: string): string {
    return this.#views.of(this.path(serial));
  }

  /** Device file of the disk. Errors: `notFound`. */
  device(serial: string): string {
    return `/dev/${this.#find(serial).name}`;
  }

  /** Device numbers for a container. Errors: `notFound`, also for a mounted disk. */
  deviceNumbers(serial: string): { readonly major: number; readonly minor: number } {
    const { name, fileSystem } = this.#find(serial);
    const status = this.#parts.status(`/dev/${name}`);
    if (fileSystem !== 'none' || status === undefined)
      throw new PodvmError('notFound', `Cannot use disk ${serial} as a device: it is mounted, or gone`);
    return { major: status.major, minor: status.minor };
  }

  /** Waits for the disk and mounts it. Errors: `alreadyExists`, `timeout`, `failedPrecondition`. */
  async attach(params: Params<'attachDisk'>): Promise<Phase[]> {
    const { serial, fileSystem, readOnly } = params;
    if (this.#disks.has(serial))
      throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: it is attached already`);
    const phases = new Phases(() => this.#parts.monotonicMs());
    const name = await phases.wait('found', () => this.#appeared(serial));
    const device = `/dev/${name}`;
    await phases.wait('mounted', () =>
      fileSystem === 'none'
        ? this.#settled(serial, () => this.#withOpen(device, () => undefined))
        : this.#mount(device, fileSystem, params),
    );
    // Not before: the kernel shows a disk before its queue.
    if (fileSystem === 'erofs')
      this.#parts.writeExisting(`/sys/block/${name}/queue/read_ahead_kb`, String(readAheadKiB));
    this.#disks.set(serial, { name, fileSystem, readOnly });
    return phases.done;
  }

  async #mount(
    device: string,
    fileSystem: FileSystem,
    { serial, readOnly, hasQuotas }: Params<'attachDisk'>,
  ): Promise<void> {
    const target = `${disksRoot}/${serial}`;
    this.#parts.makeDirectories(target, 0o700);
    const flags = (readOnly ? mountFlags.readOnly : mountFlags.noAccessTime) | mountFlags.noDevices;
    const mount = [device, target, fileSystem, flags, hasQuotas === true ? 'prjquota' : ''] as const;
    await this.#settled(serial, async () => {
      if ((await runAside(this.#parts, this.#children, () => this.#parts.mountAside(...mount))) === 0) return;
      try {
        this.#parts.mount(...mount); // repeated for the error
      } catch (error) {
        if (codeOf(error) !== 'EINVAL' || fileSystem !== 'ext4' || this.#isExt4(device)) throw error;
        throw new PodvmError('failedPrecondition', `Cannot mount disk ${serial}: it holds no ext4 file system`);
      }
    });
  }

  /** Retries while opening gives ENXIO: the kernel shows a disk before it has read its size. */
  async #settled(serial: string, use: () => void | Promise<void>): Promise<void> {
    const failure = (cause: unknown) =>
      new PodvmError('failedPrecondition', `Cannot mount disk ${serial}: ${codeOf(cause)}`, { cause });
    let last: unknown;
    const look = async () => {
      try {
        await use();
        return true;
      } catch (cause) {
        if (cause instanceof PodvmError) throw cause;
        if (codeOf(cause) !== 'ENXIO') throw failure(cause);
        last = cause;
        return undefined;
      }
    };
    if ((await poll(this.#parts, look, { everyMs: pollMs, forMs: deadlineMs })) === undefined) throw failure(last);
  }

  #withOpen<T>(device: string, use: (fd: number) => T): T {
    const fd = this.#parts.open(device, open.readOnly | open.nonBlock);
    try {
      return use(fd);
    } finally {
      this.#parts.close(fd);
    }
  }

  #isExt4(device: string): boolean {
    const bytes = new Uint8Array(2);
    this.#withOpen(device, (fd) => {
      this.#parts.seek(fd, superblock.offset + superblock.magicOffset);
      this.#parts.read(fd, bytes);
    });
    return ((bytes[1] ?? 0) << 8) + (bytes[0] ?? 0) === superblock.magic;
  }

  /**
   * Detaches a disk; all its writes are then on the host. Errors: `busy` while it is in use, in which case its writes
   * are synced as well.
   */
  async detach(serial: string): Promise<void> {
    const disk = this.#disks.get(serial);
    if (disk === undefined) return;
    if (disk.fileSystem === 'none') {
      if (!disk.readOnly) this.#withOpen(`/dev/${disk.name}`, (fd) => this.#parts.flush(fd));
    } else {
      this.#views.drop(`${disksRoot}/${serial}`);
      await this.#unmount(serial);
    }
    this.#disks.delete(serial);
  }

  async #unmount(serial: string): Promise<void> {
    const timing = { everyMs: pollMs, forMs: busyMs };
    if ((await poll(this.#parts, () => this.#tryUnmount(serial) || undefined, timing)) !== undefined) return;
    this.#parts.sync();
    throw new PodvmError('busy', `Cannot detach disk ${serial}: something uses it`);
  }

  #tryUnmount(serial: string): boolean {
    try {
      this.#parts.unmount(`${disksRoot}/${serial}`, 0);
      return true;
    } catch (cause) {
      if (codeOf(cause) !== 'EBUSY') throw cause;
      return false;
    }
  }

  get serials(): string[] {
    return [...this.#disks.keys()];
  }

  detachAll(): void {
    for (const [serial, { fileSystem }] of this.#disks) {
      if (fileSystem !== 'none') this.#tryUnmount(serial); // remaining users end with the machine; it was synced
    }
  }

  /** Errors: `notFound`, `timeout` (the kernel sees no larger disk), `failedPrecondition` (the file system refuses). */
  async grow(serial: string, sizeBytes: number): Promise<void> {
    const { name, fileSystem, readOnly } = this.#find(serial);
    const isSeen = () =>
      Number(this.#parts.readText(`/sys/block/${name}/size`, 64)) * sectorBytes >=
        sizeBytes - (sizeBytes % sectorBytes) || undefined;
    const seenWithin = (forMs: number) => poll(this.#parts, isSeen, { everyMs: pollMs, forMs });
    if ((await seenWithin(rescanAfterMs)) === undefined) {
      this.#parts.writeExisting(`/sys/block/${name}/device/rescan`, '1');
      if ((await seenWithin(deadlineMs)) === undefined)
        throw new PodvmError('timeout', `Cannot grow disk ${serial}: the kernel does not see its new size`);
    }
    if (fileSystem !== 'ext4' || readOnly) return;
    try {
      this.#parts.growExt4(`${disksRoot}/${serial}`, sizeBytes);
    } catch (cause) {
      throw new PodvmError('failedPrecondition', `Cannot grow the file system of disk ${serial}: ${codeOf(cause)}`, {
        cause,
      });
    }
  }

  #find(serial: string): Disk {
    const disk = this.#disks.get(serial);
    if (disk === undefined) throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not attached`);
    return disk;
  }

  async #appeared(serial: string): Promise<string> {
    const name = await poll(this.#parts, () => this.#look(serial), { everyMs: pollMs, forMs: deadlineMs });
    if (name !== undefined) return name;
    throw new PodvmError('timeout', `Cannot attach disk ${serial}: it did not appear within ${deadlineMs} ms`);
  }

  #look(serial: string): string | undefined {
    return this.#parts
      .list('/sys/block')
      .find(
        (name) =>
          name.startsWith('sd') && this.#serialOf(name) === serial && this.#parts.status(`/dev/${name}`) !== undefined,
      );
  }

  /** Reads the SCSI page 0x80, Unit Serial Number: four bytes, then the text. */
  #serialOf(name: string): string | undefined {
    try {
      const page = this.#parts.readFile(`/sys/block/${name}/device/vpd_pg80`, 256);
      return this.#parts.decodeUtf8(page, 4, Math.max(0, page.length - 4)).trim();
    } catch {
      return undefined; // appearing or disappearing
    }
  }
}
