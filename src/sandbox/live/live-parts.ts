import type { Link } from '#link/link.ts';
import type { Attachment } from '#network/network.ts';
import type { Machine } from '#vm/driver.ts';
import type { ContainerRecords } from '../container/container-record.ts';
import type { ContainerSite } from '../container/create-container.ts';
import type { GuestContainer } from '../container/guest-container.ts';
import type { ModulesDisk } from '../container/modules-disk.ts';
import type { GuestConnection } from './guest-connection.ts';
import type { Holdings } from '../state/holdings.ts';
import type { SandboxLimits } from '../limits.ts';
import type { NodeCounts } from '../figures/node-counts.ts';
import type { Parts, Surroundings } from '../parts.ts';
import type { LeftOvers } from '../state/left-overs.ts';
import type { KeptRecord, PodRecord } from '../recovery/record.ts';
import type { Resources, SandboxSpec, SandboxStatus } from '../sandbox.ts';
import type { ContainerMounts } from '../volume/container-mounts.ts';
import type { ImageDisks } from '../volume/image-disks.ts';

/** Results of a start that are handed over to the sandbox. */
export interface LiveParts {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly directory: string;
  readonly machine: Machine;
  readonly attachment: Attachment;
  readonly guest: Link;
  readonly imageDisks: ImageDisks;
  readonly modulesDisk: ModulesDisk;
  readonly mounts: ContainerMounts;
  readonly connection: GuestConnection;
  readonly addresses: readonly string[];
  /** The start's steps so far: that which connects the guest may end later. */
  readonly phases: () => SandboxStatus['phases'];
  readonly createdAt: Date;
  /** The pod's effective limits, and warnings where they are below its spec. */
  readonly resources: Resources;
  readonly warnings: readonly string[];
  readonly parts: Parts;
  /** Versions of the parts that its machine uses. */
  readonly versions: SandboxStatus['parts'];
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
  readonly counts: NodeCounts;
  readonly removals: LeftOvers;
  /** Everything that the start has acquired. */
  readonly holdings: Holdings;
  /** Records for the next process; absent for a sandbox that ends with this one. */
  readonly kept?: Kept;
  /** Makes the objects of the containers that an earlier process made. */
  readonly containersBefore?: (site: ContainerSite) => readonly GuestContainer[];
}

export interface Kept {
  /** What file servers had counted that ended under an earlier process. */
  readonly endedRequests?: PodRecord['endedRequests'] | undefined;
  readonly record: KeptRecord;
  readonly containers: ContainerRecords;
}
