import type { Writable } from 'node:stream';
import type { Log } from '#host/log/log.ts';
import type { Link } from '#link/link.ts';
import type { Inbox } from '../state/inbox.ts';
import type { SandboxLimits } from '../limits.ts';
import type { Output } from '../log/output.ts';
import type { ContainerExit, ContainerState, ContainerStatus } from '../sandbox.ts';
import type { HeldMounts } from '../volume/container-mounts.ts';
import type { ContainerRecords } from './container-record.ts';

/** The part of a sandbox that its containers use. */
export interface ContainerHome {
  readonly inbox: Inbox;
  readonly guest: Link;
  readonly limits: SandboxLimits;
  readonly log: Log;
  readonly now: () => Date;
  /** Converts a time of the guest to the host's date, which may have been set since the guest started. */
  readonly hostMsOf: (guestMs: number) => number;
  /** Settles when the guest has its network, before which no container starts. Errors: those of the agent. */
  readonly connected: Promise<void>;
  /** Whether this process leaves the sandbox to the next one, to which the guest tells what became of its calls. */
  readonly isLeft: () => boolean;
  /** Runs a start with the weight of one (`weighed-starts.ts`). */
  readonly starts: { during<T>(start: () => Promise<T>): Promise<T> };
  /** Records of the sandbox's containers; absent: the container ends with this process. */
  readonly records?: Pick<ContainerRecords, 'save' | 'remove'>;
}

/** Properties of a container that exists in the guest. */
export interface ContainerMade {
  readonly imageId: string;
  readonly stopSignal: number;
  readonly output: Output;
  readonly stdin: Writable | undefined;
  /** Bytes that its variables take of the kernel's room for them, which execs share. */
  envBytes?: number;
  user?: NonNullable<ContainerStatus['user']>;
  /** Released when it is gone from the guest. */
  readonly mounts: HeldMounts;
  reopenLog(): Promise<void>;
}

/** A container that an earlier process made. */
export interface ContainerBefore {
  readonly made: ContainerMade;
  readonly createdAt: Date;
  readonly startedAt?: Date;
  readonly exit?: ContainerExit;
  /** Number for the next exec, whose name must be new to the guest. */
  readonly nextExec: number;
}

export function stateOf(before: ContainerBefore | undefined): ContainerState {
  if (before === undefined) return 'creating';
  if (before.exit !== undefined) return 'exited';
  return before.startedAt === undefined ? 'created' : 'running';
}
