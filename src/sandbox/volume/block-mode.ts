import { kindOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import type { Link } from '#link/link.ts';
import { findBlockSource } from '#storage/block-claim.ts';
import type { BlockDisk, BlockDiskRecord, BlockDisks } from './block-disks.ts';
import type { AttachedSource, GuestSource, HostMode } from './host-mode.ts';
import type { SandboxLimits } from '../limits.ts';
import type { ContainerDevice } from '../sandbox.ts';

export interface BlockModeParts {
  /** Paths whose file system the pod mounts in its machine. */
  readonly paths: ReadonlySet<string>;
  readonly disks: BlockDisks;
  readonly guest: Pick<Link, 'call'>;
  readonly fsGroup: number | undefined;
  readonly limits: SandboxLimits;
  readonly log: Log;
}

/** Turns a block device of the node into a device of a container. */
export interface DeviceMode {
  /** Errors: `notFound`, `unsupported`. */
  find(device: ContainerDevice, signal: AbortSignal): Promise<FoundDevice>;
  /** Takes over a disk that an earlier process attached. Errors: those of `adoptBlockClaim`. */
  adopt(block: BlockDiskRecord): Promise<AttachedDevice>;
}

export interface FoundDevice {
  /** Devices of one sandbox with the same key share the attached disk. */
  readonly key: string;
  attach(signal: AbortSignal): Promise<AttachedDevice>;
}

export interface AttachedDevice extends AsyncDisposable {
  readonly block: BlockDiskRecord;
}

/**
 * A block device or image file of the node with an ext4 that the guest mounts as the volume. The pod chooses whether it is
 * read-only, since no other pod can have it meanwhile.
 */
export function createBlockMode(parts: BlockModeParts): HostMode {
  const { paths, disks, guest, fsGroup } = parts;
  const attachedAs = (disk: BlockDisk, source: GuestSource): AttachedSource => ({
    guest: source,
    block: disk.record,
    [Symbol.asyncDispose]: () => takeFromGuest(disk, source.volume, parts),
  });
  return {
    async adopt({ block, guest: source }) {
      return block === undefined ? undefined : attachedAs(await disks.adopt(block), source);
    },
    async find({ source: { path, fillsDisk = false }, readOnly }) {
      if (!paths.has(path)) return undefined;
      const { key } = await findBlockSource(path);
      return {
        mode: 'block',
        key: accessKey(key, readOnly),
        async attach(volume, signal) {
          await using undo = new AsyncDisposableStack();
          const disk = await disks.plug({ path, readOnly }, signal);
          undo.defer(() => takeFromGuest(disk, undefined, parts));
          const { serial, sizeBytes } = disk.record;
          await guest.call('attachDisk', { serial, fileSystem: 'ext4', readOnly }, signal);
          if (fillsDisk && !readOnly) await guest.call('growDisk', { serial, sizeBytes }, signal);
          const group = fsGroup === undefined || readOnly ? {} : { fsGroup };
          await guest.call('createVolume', { name: volume, kind: 'block', disk: serial, ...group }, signal);
          undo.move();
          return attachedAs(disk, { volume });
        },
        [Symbol.asyncDispose]: async () => {},
      };
    },
  };
}

/** Mounts nothing: the container gets the device itself. */
export function createDeviceMode(parts: BlockModeParts): DeviceMode {
  const attachedAs = (disk: BlockDisk): AttachedDevice => ({
    block: disk.record,
    [Symbol.asyncDispose]: () => takeFromGuest(disk, undefined, parts),
  });
  return {
    adopt: async (block) => attachedAs(await parts.disks.adopt(block)),
    async find({ hostPath, readOnly }) {
      const { key } = await findBlockSource(hostPath);
      return {
        key: accessKey(key, readOnly),
        async attach(signal) {
          await using undo = new AsyncDisposableStack();
          const disk = await parts.disks.plug({ path: hostPath, readOnly }, signal);
          undo.defer(() => takeFromGuest(disk, undefined, parts));
          const { serial } = disk.record;
          await parts.guest.call('attachDisk', { serial, fileSystem: 'none', readOnly }, signal);
          undo.move();
          return attachedAs(disk);
        },
      };
    },
  };
}

/** Returns a key that differs by access: a writer must not share a read-only disk, and the claim refuses it. */
function accessKey(key: string, readOnly: boolean): string {
  return `${key} ${readOnly ? 'ro' : 'rw'}`;
}

/**
 * Syncs and unmounts it in the guest, then unplugs it. Also unplugs it from a guest that does not answer or is gone:
 * its completed writes are with the VMM, and the others are lost with it. A guest that still uses it keeps it.
 */
async function takeFromGuest(disk: BlockDisk, volume: string | undefined, parts: BlockModeParts): Promise<void> {
  const { guest, limits, log } = parts;
  const signal = AbortSignal.timeout(limits.cleanUpTimeoutMs);
  try {
    if (volume !== undefined) await guest.call('removeVolume', { name: volume }, signal);
    await guest.call('detachDisk', { serial: disk.record.serial }, signal);
  } catch (error) {
    log.warn('block volume not unmounted by the guest', { disk: disk.record.serial, why: kindOf(error) });
    if (kindOf(error) === 'busy') throw error;
  }
  await disk[Symbol.asyncDispose]();
}
