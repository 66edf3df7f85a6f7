import type { Writable } from 'node:stream';
import type { Log } from '#host/log.ts';
import type { Link } from '#link/link.ts';
import type { Inbox } from '../inbox.ts';
import type { SandboxLimits } from '../limits.ts';
import type { Output } from '../log/output.ts';
import type { ContainerExit, ContainerState, ContainerStatus } from '../sandbox.ts';
import type { HeldMounts } from '../volume/container-mounts.ts';
import type { ContainerRecords } from './container-record.ts';

/** What a container needs of its sandbox. */
export interface ContainerHome {
  readonly inbox: Inbox;
  readonly guest: Link;
  readonly limits: SandboxLimits;
  readonly log: Log;
  readonly now: () => Date;
  /** Where it is written down what the container is; absent: it ends with this process. */
  readonly records?: Pick<ContainerRecords, 'save' | 'remove'>;
}

/** What is known once the container exists in the guest. */
export interface ContainerMade {
  readonly imageId: string;
  readonly stopSignal: number;
  readonly output: Output;
  readonly stdin: Writable | undefined;
  /** What its variables take of the kernel's room for them, in bytes: a command that it is asked for has them too. */
  envBytes?: number;
  user?: NonNullable<ContainerStatus['user']>;
  /** Given back when it is gone from the guest. */
  readonly mounts: HeldMounts;
  reopenLog(): Promise<void>;
}

/** A container that the process before has made. */
export interface ContainerBefore {
  readonly made: ContainerMade;
  readonly createdAt: Date;
  readonly startedAt?: Date;
  readonly exit?: ContainerExit;
  /** Number of the first exec whose name the guest does not know. */
  readonly nextExec: number;
}

export function stateOf(before: ContainerBefore | undefined): ContainerState {
  if (before === undefined) return 'creating';
  if (before.exit !== undefined) return 'exited';
  return before.startedAt === undefined ? 'created' : 'running';
}
