import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { DiskError, DiskSpec } from '../../driver.ts';
import type { Deletions } from './deletions.ts';
import type { MachineDirectory } from '../machine-directory.ts';
import type { QmpClient, QmpEvent } from '../qmp/qmp.ts';

export const diskLimits = { maxDisks: 128, errorIntervalMs: 1000 } as const;

const serialPattern = /^[a-z0-9-]{1,20}$/;
const filePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const cleanUpTimeoutMs = 5_000;
/** Size of a node without content: more than any disk, so that a guest that reads causes no errors. */
const emptyBytes = 2 ** 50;
/** QEMU's words for a node that does not exist. */
const isNoNode = /failed to find node/i;

/** The SCSI disks of one machine. virtio-mmio devices cannot be hot-plugged; SCSI devices can. */
export class Disks {
  readonly #qmp: QmpClient;
  readonly #directory: MachineDirectory;
  /** The VMM's user. */
  readonly #uid: number;
  readonly #attached = new Set<string>();
  readonly #deletions: Deletions;
  readonly #lastErrorMs = new Map<string, number>();
  #onError: (error: DiskError) => void = () => {};

  constructor(qmp: QmpClient, deletions: Deletions, directory: MachineDirectory, uid: number) {
    this.#qmp = qmp;
    this.#deletions = deletions;
    this.#directory = directory;
    this.#uid = uid;
  }

  async attach(disk: DiskSpec, signal: AbortSignal): Promise<void> {
    await this.#assertAttachable(disk);
    const { serial } = disk;
    this.#attached.add(serial);
    try {
      if (disk.device !== undefined) await this.#directory.addDevice(serial, disk.device, this.#uid, signal);
      if (isJoined(disk)) await this.#directory.addJoined(serial, [disk.file, ...disk.followedBy]);
      await this.#qmp.execute('blockdev-add', blockNode(disk, this.#directory), signal);
      await this.#qmp.execute('device_add', scsiDisk(serial), signal);
    } catch (cause) {
      // If the undo failed, the caller can still detach the disk.
      if (await this.#undoAttach(serial)) this.#attached.delete(serial);
      throw attachFailure(disk, cause);
    }
  }

  /**
   * Undoes both steps of an attachment, whichever were done, since QEMU runs all commands it was sent even when the
   * caller has left. Does not use the caller's signal, which may have ended the call. A refusal means that the step was
   * not done. Returns false when QEMU confirms neither.
   */
  async #undoAttach(serial: string): Promise<boolean> {
    const signal = AbortSignal.timeout(cleanUpTimeoutMs);
    const device = deviceId(serial);
    const deleted = this.#deletions.of(device, signal).catch(() => undefined);
    const wasThere = await this.#qmp.execute('device_del', { id: device }, signal).then(
      () => true,
      () => false,
    );
    if (wasThere) await deleted;
    this.#deletions.forget(device);
    const isGone = await this.#qmp.execute('blockdev-del', { 'node-name': nodeName(serial) }, signal).then(
      () => true,
      (error: unknown) => /failed to find node/i.test(messageOf(error)),
    );
    await this.#directory.removeDevice(serial);
    await this.#directory.removeJoined(serial);
    return isGone;
  }

  async detach(serial: string, signal: AbortSignal): Promise<void> {
    this.#assertAttached(serial, 'detach');
    const deleted = this.#deletions.of(deviceId(serial), signal);
    deleted.catch(() => undefined); // awaited below; the command may fail first
    try {
      // A guest that kept the disk during an earlier call may have released it since.
      if (await this.#isPlugged(serial, signal)) await deleted;
      for (const name of [nodeName(serial), emptyNodeName(serial)]) {
        await this.#qmp.execute('blockdev-del', { 'node-name': name }, signal).catch(unless(isNoNode));
      }
    } finally {
      this.#deletions.forget(deviceId(serial));
    }
    await this.#directory.removeDevice(serial);
    await this.#directory.removeJoined(serial);
    this.#attached.delete(serial);
    this.#lastErrorMs.delete(serial);
  }

  /**
   * Gives the device a node without content, in which it reads zeroes. Nothing waits for the guest, while a disk's removal
   * takes QEMU 50 ms (its RCU) and a guest's kernel several times the work.
   */
  async empty(serial: string, signal: AbortSignal): Promise<void> {
    this.#assertAttached(serial, 'empty');
    const drive = emptyNodeName(serial);
    const zeroes = { driver: 'null-co', 'node-name': drive, 'read-only': true, 'read-zeroes': true, size: emptyBytes };
    const isAgain = await this.#qmp.execute('blockdev-add', zeroes, signal).then(
      () => false,
      (error: unknown) => {
        if (/duplicate node/i.test(messageOf(error))) return true;
        throw error;
      },
    );
    const close = () => this.#qmp.execute('blockdev-del', { 'node-name': nodeName(serial) }, signal);
    // QEMU crashes when a device is given the node that it has.
    if (
      isAgain &&
      (await close().then(
        () => true,
        (error: unknown) => isNoNode.test(messageOf(error)),
      ))
    )
      return;
    const path = `/machine/peripheral/${deviceId(serial)}`;
    await this.#qmp.execute('qom-set', { path, property: 'drive', value: drive }, signal);
    await close();
    await this.#directory.removeJoined(serial);
  }

  async #isPlugged(serial: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#qmp.execute('device_del', { id: deviceId(serial) }, signal);
      return true;
    } catch (error) {
      if (/not found/i.test(messageOf(error))) return false;
      if (/in the process of unplug/i.test(messageOf(error))) return true;
      throw error;
    }
  }

  async grow(serial: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    this.#assertAttached(serial, 'grow');
    try {
      await this.#qmp.execute('block_resize', { 'node-name': nodeName(serial), size: sizeBytes }, signal);
    } catch (cause) {
      if (!(cause instanceof PodvmError) || cause.kind !== 'internal') throw cause;
      throw new PodvmError('invalid', `Cannot grow disk ${serial} to ${sizeBytes} bytes: ${cause.message}`, { cause });
    }
  }

  onError(listener: (error: DiskError) => void): void {
    this.#onError = listener;
  }

  /**
   * Handles QEMU's BLOCK_IO_ERROR. Reported once a second, since a guest may write into a full disk as often as it
   * likes.
   */
  failed(data: QmpEvent['data']): void {
    const device = data['qom-path'] ?? data['device'];
    const serial = typeof device === 'string' ? (/(?:^|\/)scsi-([a-z0-9-]{1,20})$/.exec(device)?.[1] ?? '') : '';
    const node = data['node-name'];
    const named = typeof node === 'string' && node.startsWith('disk-') ? node.slice('disk-'.length) : serial;
    if (!this.#attached.has(named)) return;
    const nowMs = performance.now();
    if (nowMs - (this.#lastErrorMs.get(named) ?? -Infinity) < diskLimits.errorIntervalMs) return;
    this.#lastErrorMs.set(named, nowMs);
    const operation = data['operation'] === 'read' ? 'read' : 'write';
    // `nospace` is set only for disks that stop their machine; `reason` is the host's error text.
    const isFull = data['nospace'] === true || data['reason'] === 'No space left on device';
    this.#onError({ serial: named, operation, isFull });
  }

  /** Asks QEMU which disks it has, for a machine that an earlier process started. */
  async learn(signal: AbortSignal): Promise<void> {
    const nodes = await this.#qmp.execute('query-named-block-nodes', { flat: true }, signal);
    if (!Array.isArray(nodes)) return;
    // Beside the node of each disk there are those of its files: dozens if it is joined.
    for (const node of nodes) {
      const name: unknown = typeof node === 'object' && node !== null ? Reflect.get(node, 'node-name') : undefined;
      const [, serial] = (typeof name === 'string' && /^(?:disk|empty)-(.+)$/.exec(name)) || [];
      if (serial !== undefined && this.#attached.size < diskLimits.maxDisks) this.#attached.add(serial);
    }
  }

  #assertAttached(serial: string, verb: string): void {
    if (this.#attached.has(serial)) return;
    throw new PodvmError('notFound', `Cannot ${verb} disk ${serial}: no such disk is attached`);
  }

  async #assertAttachable({ serial, file, followedBy = [], readOnly }: DiskSpec): Promise<void> {
    const files = file === undefined ? [] : [file, ...followedBy];
    if (!serialPattern.test(serial)) throw new PodvmError('invalid', `Cannot attach disk: bad serial, got ${serial}`);
    const odd = files.find((name) => !filePattern.test(name));
    if (odd !== undefined) throw new PodvmError('invalid', `Cannot attach disk ${serial}: bad file name, got ${odd}`);
    if (followedBy.length > 0 && !readOnly)
      throw new PodvmError('invalid', `Cannot attach disk ${serial}: a disk of several files is read-only`);
    if (this.#attached.has(serial)) {
      throw new PodvmError('alreadyExists', `Cannot attach disk ${serial}: a disk with this serial is attached`);
    }
    if (this.#attached.size >= diskLimits.maxDisks) {
      throw new PodvmError('exhausted', `Cannot attach disk ${serial}: ${diskLimits.maxDisks} disks are attached`, {
        fix: 'Use fewer images and volumes in the pod.',
      });
    }
    for (const name of files) {
      await access(join(this.#directory.path, name)).catch((cause: unknown) => {
        throw new PodvmError('failedPrecondition', `Cannot attach disk ${serial}: its file ${name} is missing`, {
          cause,
        });
      });
    }
  }
}

function blockNode(disk: DiskSpec, directory: MachineDirectory): Record<string, unknown> {
  const { serial, readOnly } = disk;
  const discard = readOnly ? 'ignore' : 'unmap';
  const protocol =
    disk.device === undefined
      ? { driver: 'file', filename: isJoined(disk) ? directory.insideJoined(serial) : directory.inside(disk.file) }
      : { driver: 'host_device', filename: directory.insideDevice(serial) };
  return {
    driver: isJoined(disk) ? 'vmdk' : 'raw', // QEMU has no other way to put files one behind the other
    'node-name': nodeName(serial),
    'read-only': readOnly,
    discard,
    'detect-zeroes': 'off',
    file: { ...protocol, 'read-only': readOnly, discard, aio: 'threads' },
  };
}

const isJoined = (
  disk: DiskSpec,
): disk is DiskSpec & { readonly file: string; readonly followedBy: readonly string[] } =>
  disk.followedBy !== undefined && disk.followedBy.length > 0;

/**
 * `report` passes errors to the guest. QEMU's default for a full host disk stops the whole machine with all its
 * containers.
 */
function scsiDisk(serial: string): Record<string, unknown> {
  const errors = { rerror: 'report', werror: 'report' };
  const drive = nodeName(serial);
  return { driver: 'scsi-hd', id: deviceId(serial), bus: 'scsi.0', drive, serial, device_id: serial, ...errors };
}

function nodeName(serial: string): string {
  return `disk-${serial}`;
}

function emptyNodeName(serial: string): string {
  return `empty-${serial}`;
}

/** Passes on errors of QEMU with other words. */
function unless(words: RegExp): (error: unknown) => void {
  return (error) => {
    if (!words.test(messageOf(error))) throw error;
  };
}

function deviceId(serial: string): string {
  return `scsi-${serial}`;
}

function attachFailure({ serial, file }: DiskSpec, cause: unknown): PodvmError {
  const text = messageOf(cause);
  const kind = cause instanceof PodvmError ? cause.kind : 'internal';
  if (/Permission denied/.test(text)) {
    const what = file ?? 'the device';
    return new PodvmError('denied', `Cannot attach disk ${serial}: the VMM's user may not open ${what}`, {
      cause,
      fix:
        file === undefined
          ? 'Keep the state directory on a file system that is not mounted nodev.'
          : 'Keep the state directory on a file system of this machine, which follows owners and modes.',
    });
  }
  return new PodvmError(kind, `Cannot attach disk ${serial}: ${text}`, {
    cause,
    ...(cause instanceof PodvmError ? { tail: cause.tail } : {}),
  });
}
