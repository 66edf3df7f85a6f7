import type { Log } from '#host/log.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import type { Events } from './events.ts';
import type { Tasks } from './task/tasks.ts';

/** Parts that the verbs use. */
export interface ShimParts {
  readonly sandboxes: Pick<Sandboxes, 'run'>;
  readonly tasks: Tasks;
  readonly events: Events;
  readonly log: Log;
}
