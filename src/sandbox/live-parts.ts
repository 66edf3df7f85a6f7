import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { ContainerRecords } from './container/container-record.ts';
import type { ContainerSite } from './container/create-container.ts';
import type { GuestContainer } from './container/guest-container.ts';
import type { ModulesDisk } from './container/modules-disk.ts';
import type { Holdings } from './holdings.ts';
import type { SandboxLimits } from './limits.ts';
import type { Parts, Surroundings } from './parts.ts';
import type { KeptRecord } from './recovery/record.ts';
import type { Resources, SandboxSpec, SandboxStatus } from './sandbox.ts';
import type { ContainerMounts } from './volume/container-mounts.ts';
import type { ImageDisks } from './volume/image-disks.ts';

/** What a start has made, given over to the sandbox. */
export interface LiveParts {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly directory: string;
  readonly machine: Machine;
  readonly guest: Link;
  readonly imageDisks: ImageDisks;
  readonly modulesDisk: ModulesDisk;
  readonly mounts: ContainerMounts;
  readonly addresses: readonly string[];
  readonly phases: SandboxStatus['phases'];
  readonly createdAt: Date;
  /** The pod's limits as it has them, and in sentences where its spec says more. */
  readonly resources: Resources;
  readonly warnings: readonly string[];
  readonly parts: Parts;
  /** Of the parts that its machine is made of. */
  readonly versions: SandboxStatus['parts'];
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
  /** All that the start has acquired. */
  readonly holdings: Holdings;
  /** Of a sandbox that outlives its process: what the next one is told. */
  readonly kept?: Kept;
  /** Containers that the process before has made. */
  readonly containersBefore?: (site: ContainerSite) => readonly GuestContainer[];
}

export interface Kept {
  readonly record: KeptRecord;
  readonly containers: ContainerRecords;
}
