import type { Log } from '#host/log/log.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import type { Events } from './events.ts';
import type { FifoKeeper } from './io/fifo-keeper.ts';
import type { PodPorts } from './ports/forward-ports.ts';
import type { TaskRecords } from './task/task-records.ts';
import type { Tasks } from './task/tasks.ts';

/** Parts that the verbs use. */
export interface ShimParts {
  readonly sandboxes: Pick<Sandboxes, 'run' | 'list'>;
  readonly tasks: Tasks;
  readonly records: TaskRecords;
  readonly keeper: FifoKeeper;
  readonly ports: PodPorts;
  /** Aborts when the daemon ends. */
  readonly closing: AbortSignal;
  readonly events: Events;
  readonly log: Log;
}
