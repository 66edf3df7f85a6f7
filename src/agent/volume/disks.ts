import { PodvmError } from '#base/errors.ts';
import type { Params } from '#wire/messages.ts';
import { mountFlags } from '../engine/constants.ts';
import { codeOf, type Clock, type Files, type Mounts, type Text } from '../engine/engine.ts';
import type { MappedViews } from './mapped-views.ts';

type Parts = Clock & Files & Mounts & Pick<Text, 'decodeUtf8'>;

const disksRoot = '/run/podvm/disks';
const deadlineMs = 10_000;
const pollMs = 5;

/** The SCSI disks that the host attached, mounted by their serial. */
export class Disks {
  readonly #parts: Parts;
  readonly #views: MappedViews;
  /** Device files, by serial. */
  readonly #mounted = new Map<string, string>();

  constructor(parts: Parts, views: MappedViews) {
    this.#parts = parts;
    this.#views = views;
  }

  /** Where the disk is mounted. Errors: `notFound`. */
  path(serial: string): string {
    this.device(serial);
    return `${disksRoot}/${serial}`;
  }

  /** Its device file. Errors: `notFound`. */
  device(serial: string): string {
    const device = this.#mounted.get(serial);
    if (device !== undefined) return device;
    throw new PodvmError('notFound', `Cannot use disk ${serial}: it is not attached`);
  }

  /** The same, as the pod's users see it. Errors: `notFound`, `failedPrecondition`. */
  mapped(serial: string): string {
    return this.#views.of(this.path(serial));
  }

  /** Waits for the disk and mounts it. Errors: `alreadyExists`, `timeout`, `failedPrecondition`. */
  async attach({
    serial,
    fileSystem,
    readOnly,
    hasQuotas,
  }: Params<'attachDisk'>): Promise<{ name: string; ms: number }[]> {
    if (this.#mounted.has(serial)) throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: it is mounted`);
    const startedMs = this.#parts.monotonicMs();
    const device = await this.#find(serial);
    const foundMs = this.#parts.monotonicMs();
    const target = `${disksRoot}/${serial}`;
    this.#parts.makeDirectories(target, 0o700);
    const flags = readOnly ? mountFlags.readOnly : mountFlags.noAccessTime;
    const options = hasQuotas === true ? 'prjquota' : '';
    const mount = () => this.#parts.mount(device, target, fileSystem, flags | mountFlags.noDevices, options);
    await this.#mount(serial, mount);
    this.#mounted.set(serial, device);
    return [
      { name: 'found', ms: foundMs - startedMs },
      { name: 'mounted', ms: this.#parts.monotonicMs() - foundMs },
    ];
  }

  /** The kernel shows a disk before it can be opened: until it has read its size, that gives ENXIO. */
  async #mount(serial: string, mount: () => void): Promise<void> {
    const giveUpMs = this.#parts.monotonicMs() + deadlineMs;
    while (true) {
      try {
        mount();
        return;
      } catch (cause) {
        const isAppearing = codeOf(cause) === 'ENXIO' && this.#parts.monotonicMs() < giveUpMs;
        if (!isAppearing) {
          throw new PodvmError('failedPrecondition', `Cannot mount disk ${serial}: ${codeOf(cause)}`, { cause });
        }
      }
      await this.#pause();
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#parts.setTimer(pollMs, resolve);
    });
  }

  detach(serial: string): void {
    if (!this.#mounted.has(serial)) return;
    this.#views.drop(`${disksRoot}/${serial}`);
    try {
      this.#parts.unmount(`${disksRoot}/${serial}`, 0);
    } catch (cause) {
      if (codeOf(cause) !== 'EBUSY') throw cause;
      throw new PodvmError('busy', `Cannot detach disk ${serial}: something uses it`, { cause });
    }
    this.#mounted.delete(serial);
  }

  detachAll(): void {
    for (const serial of this.#mounted.keys()) {
      try {
        this.detach(serial);
      } catch {
        // what still uses it dies with the machine; the disk was synced
      }
    }
  }

  async #find(serial: string): Promise<string> {
    const giveUpMs = this.#parts.monotonicMs() + deadlineMs;
    while (true) {
      const device = this.#look(serial);
      if (device !== undefined) return device;
      if (this.#parts.monotonicMs() > giveUpMs) {
        throw new PodvmError('timeout', `Cannot attach disk ${serial}: it did not appear within ${deadlineMs} ms`);
      }
      await this.#pause();
    }
  }

  #look(serial: string): string | undefined {
    for (const name of this.#parts.list('/sys/block')) {
      if (!name.startsWith('sd') || this.#serialOf(name) !== serial) continue;
      if (this.#parts.status(`/dev/${name}`) !== undefined) return `/dev/${name}`;
    }
    return undefined;
  }

  /** From the SCSI page 0x80, Unit Serial Number: four bytes, then the text. */
  #serialOf(name: string): string | undefined {
    try {
      const page = this.#parts.readFile(`/sys/block/${name}/device/vpd_pg80`, 256);
      return this.#parts.decodeUtf8(page, 4, Math.max(0, page.length - 4)).trim();
    } catch {
      return undefined; // just appearing, or just going
    }
  }
}
