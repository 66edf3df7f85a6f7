import { join } from 'node:path';
import type { Link } from '#link/link.ts';
import { diskBytesFor } from '#storage/scratch-disk.ts';
import type { Machine } from '#vm/driver.ts';
import type { MachineSize } from '../resources.ts';
import type { Parts } from '../parts.ts';
import type { SandboxVolume } from '../sandbox.ts';

/** Serial of the disk with the writable layers and the scratch volumes. */
export const scratchSerial = 'scratch';

/**
 * Disks of scratch volumes with a limit, one each: writers beyond it get ENOSPC, privileged or not. Removed with the
 * machine.
 */
export interface VolumeDisks extends AsyncDisposable {
  /** Returns the disk's serial. Errors: those of `makeVolumeDisk`, machine and agent. */
  plug(roomBytes: number, signal: AbortSignal): Promise<string>;
}

export interface VolumeDisksParts {
  readonly machine: Pick<Machine, 'attachDisk'>;
  readonly guest: Pick<Link, 'call'>;
  readonly makeVolumeDisk: Parts['makeVolumeDisk'];
  readonly machineDirectory: string;
  readonly ownerUid: number;
}

export function createVolumeDisks(parts: VolumeDisksParts): VolumeDisks {
  const { machine, guest, makeVolumeDisk, machineDirectory, ownerUid } = parts;
  const made = new AsyncDisposableStack();
  let next = 0;
  return {
    async plug(roomBytes, signal) {
      const serial = `volume-${next}`;
      next += 1;
      const file = `${serial}.ext4`;
      made.use(await makeVolumeDisk({ path: join(machineDirectory, file), roomBytes, ownerUid }, signal));
      await machine.attachDisk({ serial, file, readOnly: false }, signal);
      await guest.call('attachDisk', { serial, fileSystem: 'ext4', readOnly: false, hasQuotas: true }, signal);
      return serial;
    },
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  };
}

/**
 * Room of the volume's own disk, in bytes; undefined when it is a directory of the scratch disk: if the pod limits all of
 * its storage, which the one disk enforces, or if the scratch disk is the smaller of the two.
 */
export function roomOfOwn(volume: SandboxVolume, { scratchBytes, resources }: MachineSize): number | undefined {
  if (volume.kind !== 'scratch' || volume.sizeLimitBytes === undefined) return undefined;
  if (resources.ephemeralStorageBytes !== undefined || diskBytesFor(volume.sizeLimitBytes) > scratchBytes)
    return undefined;
  return volume.sizeLimitBytes;
}
