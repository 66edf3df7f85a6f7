import type { PartVersions } from '#host/assets.ts';
import type { Log } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import type { SnapshotImages } from '#image/snapshot/snapshot-images.ts';
import type { Link, LinkOptions } from '#link/link.ts';
import type { Network } from '#network/network.ts';
import type { FileServers } from '#storage/file-server.ts';
import type { BlockClaim, BlockClaimRecord, BlockClaimRequest } from '#storage/block-claim.ts';
import type { ScratchDiskRequest, VolumeDiskRequest } from '#storage/scratch-disk.ts';
import type { ScratchDisk } from '#storage/volumes.ts';
import type { MachineDriver } from '#vm/driver.ts';
import type { LoggedBytes } from './log/log-position.ts';
import type { LogWriter } from './log/log-writer.ts';
import type { OutputFifos } from './sandbox.ts';

/** The lower layers, as a sandbox uses them. Each documents its own errors. */
export interface Parts {
  readonly driver: MachineDriver;
  readonly network: Network;
  readonly images: Pick<ImageStore, 'hold' | 'get'>;
  readonly snapshots: SnapshotImages;
  makeScratchDisk(request: ScratchDiskRequest, signal: AbortSignal): Promise<ScratchDisk>;
  makeVolumeDisk(request: VolumeDiskRequest, signal: AbortSignal): Promise<ScratchDisk>;
  readonly files: FileServers;
  claimBlock(request: BlockClaimRequest, signal: AbortSignal): Promise<BlockClaim>;
  adoptBlockClaim(record: BlockClaimRecord): Promise<BlockClaim>;
  /** EROFS file with modules of the guest's kernel. */
  readonly modulesDisk: string;
  /** Versions of driver, file servers and modules, from set-up. */
  readonly versions: PartVersions;
  openFifos(fifos: OutputFifos): Promise<FifoOutput>;
  connectLink(options: LinkOptions, signal: AbortSignal): Promise<Link>;
}

/** Writes a container's output to FIFOs, which outlive this process and know how much they got. */
export interface FifoOutput extends LogWriter {
  /** Bytes that they have from an earlier process. */
  readonly logged: LoggedBytes;
}

/** Clocks, randomness and the node's free resources, given from outside. */
export interface Surroundings {
  readonly nowMs: () => number;
  readonly monotonicNs: () => bigint;
  readonly randomBytes: (count: number) => Uint8Array;
  /** Memory that the node has available, in bytes. */
  readonly availableBytes: () => Promise<number>;
  /** Time that all cores of the node together have been idle since it booted, in `ms`. */
  readonly idleMs: () => Promise<number>;
  /** Whether this process may hold `count` more descriptors. */
  readonly hasDescriptors: (count: number) => boolean;
  readonly log: Log;
}
