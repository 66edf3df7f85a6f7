import { kindOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import type { Link } from '#link/link.ts';
import type { BlockClaim, BlockClaimRecord, BlockClaimRequest } from '#storage/block-claim.ts';
import type { Machine } from '#vm/driver.ts';
import { followGrowth } from './block-growth.ts';
import type { SandboxLimits } from '../limits.ts';

/** The block devices and image files of the node that are disks of one machine. */
export interface BlockDisks {
  /** Claims and plugs it. Errors: those of `claimBlock` and of the machine; the claim is then released. */
  plug(request: Pick<BlockClaimRequest, 'path' | 'readOnly'>, signal: AbortSignal): Promise<BlockDisk>;
  /** Takes over a disk of an earlier process. Errors: those of `adoptBlockClaim`. */
  adopt(record: BlockDiskRecord): Promise<BlockDisk>;
}

/** A disk as recorded for the next process; plain JSON. */
export interface BlockDiskRecord {
  /** Serial by which the guest finds it. */
  readonly serial: string;
  /** Size when it was plugged. */
  readonly sizeBytes: number;
  readonly claim: BlockClaimRecord;
}

export interface BlockDisk extends AsyncDisposable {
  readonly record: BlockDiskRecord;
}

export interface BlockDisksParts {
  readonly machine: Pick<Machine, 'record' | 'attachDisk' | 'detachDisk' | 'growDisk'>;
  readonly guest: Pick<Link, 'call'>;
  readonly claimBlock: (request: BlockClaimRequest, signal: AbortSignal) => Promise<BlockClaim>;
  readonly adoptBlockClaim: (record: BlockClaimRecord) => Promise<BlockClaim>;
  /**
   * Outlives the machine, and holds every claim: a disk that could not be unplugged may still be written to, and stays
   * claimed until the VMM is gone.
   */
  readonly claims: AsyncDisposableStack;
  readonly limits: SandboxLimits;
  readonly log: Log;
}

const cleanUpTimeoutMs = 15_000;

export function createBlockDisks(parts: BlockDisksParts): BlockDisks {
  const { machine, guest, claims, limits, log } = parts;
  let next = 0;
  const diskOf = (serial: string, claim: BlockClaim, sizeBytes: number): BlockDisk => {
    const { path } = claim.record;
    const growth = followGrowth(sizeBytes, {
      intervalMs: limits.growthIntervalMs,
      measure: (measuring) => claim.measure(measuring),
      async grown(bytes, growing) {
        await machine.growDisk(serial, bytes, growing);
        await guest.call('growDisk', { serial, sizeBytes: bytes }, growing);
        log.info('block volume has grown', { disk: serial, path, bytes });
      },
      failed: (error) => log.error('growth of a block volume not followed', error, { disk: serial, path }),
    });
    return {
      record: { serial, sizeBytes, claim: claim.record },
      async [Symbol.asyncDispose]() {
        await growth[Symbol.asyncDispose]();
        await machine.detachDisk(serial, AbortSignal.timeout(limits.cleanUpTimeoutMs));
        await claim[Symbol.asyncDispose]();
        log.info('block volume unplugged', { disk: serial, path });
      },
    };
  };
  return {
    async adopt({ serial, sizeBytes, claim: record }) {
      next = Math.max(next, Number(/^block-(\d+)$/.exec(serial)?.[1] ?? -1) + 1);
      return diskOf(serial, claims.use(await parts.adoptBlockClaim(record)), sizeBytes);
    },
    async plug({ path, readOnly }, signal) {
      const serial = `block-${next}`;
      next += 1;
      const claim = await parts.claimBlock({ path, readOnly, vmmPid: machine.record.pid }, signal);
      claims.use(claim); // usually disposed of twice; the second time does nothing
      const sizeBytes = await attach(claim, { serial, readOnly }, machine, signal);
      log.info('block volume plugged', { disk: serial, path, readOnly });
      return diskOf(serial, claim, sizeBytes);
    },
  };
}

/** Returns its size. After an error the claim is released, unless the machine may still have the device. */
async function attach(
  claim: BlockClaim,
  disk: { readonly serial: string; readonly readOnly: boolean },
  machine: BlockDisksParts['machine'],
  signal: AbortSignal,
): Promise<number> {
  try {
    const sizeBytes = await claim.measure(signal);
    await machine.attachDisk({ ...disk, device: claim.device }, signal);
    return sizeBytes;
  } catch (error) {
    const why = await machine.detachDisk(disk.serial, AbortSignal.timeout(cleanUpTimeoutMs)).catch(kindOf);
    if (why === undefined || why === 'notFound') await claim[Symbol.asyncDispose]();
    throw error;
  }
}
