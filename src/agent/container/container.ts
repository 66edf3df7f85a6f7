import type { AgentEvent, ContainerParams } from '#wire/messages.ts';
import type { ProcessIo } from '../io/process-io.ts';
import type { ResolvedUser } from './users.ts';

/**
 * What the agent knows of one container.
 *
 *   creating -> created -> running -> exited
 *
 * `created`: crun has made it and waits for `start`. Its files, mounts and cgroup stay until it is removed.
 */
export interface Container {
  readonly id: string;
  readonly cgroup: string;
  /** Directory with config.json, the root's mount point, the termination log. */
  readonly bundle: string;
  readonly params: Pick<ContainerParams, 'terminationLogPath' | 'scratchDisk'> & { readonly noNewPrivileges: boolean };
  state: 'creating' | 'created' | 'running' | 'exited';
  pid: number;
  io: ProcessIo | undefined;
  readonly execs: Map<string, Exec>;
  /** Mount points below `bundle`, in the order they were made. */
  readonly mountPoints: string[];
  oomKills: number;
  /** Watched descriptor of memory.events, -1: none. */
  memoryEventsFd: number;
}

export interface Exec {
  readonly id: string;
  pid: number;
  io: ProcessIo | undefined;
}

export interface CreatedContainer {
  readonly pid: number;
  readonly user: ResolvedUser;
}

export type Tell = (event: AgentEvent) => void;
