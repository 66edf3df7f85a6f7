import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { DiskSpec } from '../driver.ts';
import type { Deletions } from './deletions.ts';
import type { MachineDirectory } from './machine-directory.ts';
import type { QmpClient } from './qmp.ts';

export const diskLimits = { maxDisks: 128 } as const;

const serialPattern = /^[a-z0-9-]{1,20}$/;
const filePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const cleanUpTimeoutMs = 5_000;

/** The SCSI disks of one machine. virtio-mmio devices do not hot-plug, but what hangs on the SCSI bus does. */
export class Disks {
  readonly #qmp: QmpClient;
  readonly #directory: MachineDirectory;
  readonly #attached = new Set<string>();
  readonly #deletions: Deletions;

  constructor(qmp: QmpClient, deletions: Deletions, directory: MachineDirectory) {
    this.#qmp = qmp;
    this.#deletions = deletions;
    this.#directory = directory;
  }

  async attach(disk: DiskSpec, signal: AbortSignal): Promise<void> {
    await this.#assertAttachable(disk);
    this.#attached.add(disk.serial);
    const node = blockNode(nodeName(disk.serial), this.#directory.inside(disk.file), disk.readOnly);
    try {
      await this.#qmp.execute('blockdev-add', node, signal);
      await this.#qmp.execute('device_add', scsiDisk(disk.serial), signal);
    } catch (cause) {
      await this.#undoAttach(disk.serial);
      this.#attached.delete(disk.serial);
      throw attachFailure(disk, cause);
    }
  }

  /**
   * QEMU runs what it was sent, in order, also when the caller has left meanwhile: so both steps are undone, whichever
   * were done. Not by the caller's signal, which may be what ended the call; refusals mean that there was nothing.
   */
  async #undoAttach(serial: string): Promise<void> {
    const signal = AbortSignal.timeout(cleanUpTimeoutMs);
    const device = deviceId(serial);
    const deleted = this.#deletions.of(device, signal).catch(() => undefined);
    const wasThere = await this.#qmp.execute('device_del', { id: device }, signal).then(
      () => true,
      () => false,
    );
    if (wasThere) await deleted;
    this.#deletions.forget(device);
    await this.#qmp.execute('blockdev-del', { 'node-name': nodeName(serial) }, signal).catch(() => undefined);
  }

  async detach(serial: string, signal: AbortSignal): Promise<void> {
    if (!this.#attached.has(serial)) {
      throw new PodvmError('notFound', `Cannot detach disk ${serial}: no such disk is attached`);
    }
    const deleted = this.#deletions.of(deviceId(serial), signal);
    deleted.catch(() => undefined); // looked at below; the command may fail first
    try {
      await this.#qmp.execute('device_del', { id: deviceId(serial) }, signal);
      await deleted;
      await this.#qmp.execute('blockdev-del', { 'node-name': nodeName(serial) }, signal);
    } finally {
      this.#deletions.forget(deviceId(serial));
    }
    this.#attached.delete(serial);
  }

  /** Asks a QEMU that another process of ours started which disks it has. */
  async learn(signal: AbortSignal): Promise<void> {
    const nodes = await this.#qmp.execute('query-named-block-nodes', { flat: true }, signal);
    if (!Array.isArray(nodes)) return;
    for (const node of nodes.slice(0, 4 * diskLimits.maxDisks)) {
      const name: unknown = typeof node === 'object' && node !== null ? Reflect.get(node, 'node-name') : undefined;
      if (typeof name === 'string' && name.startsWith('disk-')) this.#attached.add(name.slice('disk-'.length));
    }
  }

  async #assertAttachable({ serial, file }: DiskSpec): Promise<void> {
    if (!serialPattern.test(serial)) throw new PodvmError('invalid', `Cannot attach disk: bad serial, got ${serial}`);
    if (!filePattern.test(file))
      throw new PodvmError('invalid', `Cannot attach disk ${serial}: bad file name, got ${file}`);
    if (this.#attached.has(serial)) {
      throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: a disk with this serial is attached`);
    }
    if (this.#attached.size >= diskLimits.maxDisks) {
      throw new PodvmError('exhausted', `Cannot attach disk ${serial}: ${diskLimits.maxDisks} disks are attached`);
    }
    await access(join(this.#directory.path, file)).catch((cause: unknown) => {
      throw new PodvmError('failedPrecondition', `Cannot attach disk ${serial}: its file ${file} is missing`, {
        cause,
      });
    });
  }
}

function blockNode(node: string, filename: string, readOnly: boolean): Record<string, unknown> {
  return {
    driver: 'raw',
    'node-name': node,
    'read-only': readOnly,
    discard: readOnly ? 'ignore' : 'unmap',
    'detect-zeroes': 'off',
    file: { driver: 'file', filename, 'read-only': readOnly, discard: readOnly ? 'ignore' : 'unmap', aio: 'threads' },
  };
}

function scsiDisk(serial: string): Record<string, unknown> {
  return { driver: 'scsi-hd', id: deviceId(serial), bus: 'scsi.0', drive: nodeName(serial), serial, device_id: serial };
}

function nodeName(serial: string): string {
  return `disk-${serial}`;
}

function deviceId(serial: string): string {
  return `scsi-${serial}`;
}

function attachFailure(disk: DiskSpec, cause: unknown): PodvmError {
  const text = cause instanceof Error ? cause.message : '';
  const kind = cause instanceof PodvmError ? cause.kind : 'internal';
  if (/Permission denied/.test(text)) {
    return new PodvmError('denied', `Cannot attach disk ${disk.serial}: the VMM's user may not open ${disk.file}`, {
      cause,
    });
  }
  return new PodvmError(kind, `Cannot attach disk ${disk.serial}: ${text}`, {
    cause,
    ...(cause instanceof PodvmError ? { tail: cause.tail } : {}),
  });
}
