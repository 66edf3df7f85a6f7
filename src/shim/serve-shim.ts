import { stat } from 'node:fs/promises';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import { Events } from './events.ts';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { forgetTask } from './keep-track.ts';
import { attendKeeper } from './keeper/attend-keeper.ts';
import { type Keeper, recordsDirectoryOf } from './keeper/keeper.ts';
import type { ShimParts } from './parts.ts';
import { forwardPorts, holdConnections } from './ports/forward-ports.ts';
import { recoverTasks } from './recover-tasks.ts';
import { taskRecordsIn } from './task/task-records.ts';
import { Tasks } from './task/tasks.ts';
import { sandboxIdOf } from './translate/sandbox-spec.ts';
import { taskVerbs } from './task-verbs.ts';
import { handlersOf } from './ttrpc/service.ts';
import { serveTtrpc } from './ttrpc/server.ts';

export interface ShimOptions {
  /** Private directory of the shim; made if missing. */
  readonly directory: string;
  readonly keeper: Keeper;
  readonly sandboxes: Pick<Sandboxes, 'run' | 'list'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Replaced in tests. */
  readonly ports?: ShimParts['ports'];
  /** Interval at which pods that containerd has forgotten are looked for, in `ms`; default 60,000. */
  readonly forgottenMs?: number;
}

/** The service in its second and third version, which have the same messages. */
const serviceNames = [Task.typeName, 'containerd.task.v3.Task'];

/**
 * Serves containerd's task API to the keeper until it is disposed, for all tasks of the node. Its pods continue. Errors:
 * those of `serveTtrpc`.
 */
export async function serveShim(options: ShimOptions): Promise<AsyncDisposable> {
  const { directory, keeper, sandboxes, clock, log, forgottenMs = 60_000 } = options;
  const { ports = { hold: holdConnections, forward: forwardPorts } } = options;
  await using undo = new AsyncDisposableStack();
  const closing = new AbortController();
  const tasks = new Tasks();
  const events = undo.use(new Events(clock, log));
  const records = taskRecordsIn(recordsDirectoryOf(directory), log);
  const parts: ShimParts = {
    ...{ sandboxes, tasks, records, keeper, ports, events, log },
    closing: closing.signal,
  };
  await recoverTasks(parts);
  const handlers = handlersOf(Task, taskVerbs(parts));
  const timer = setInterval(() => void removeForgotten(parts), forgottenMs).unref();
  undo.use(await attendKeeper({ keeper, directory, hasTasks: () => tasks.all().length > 0, log }));
  undo.use(await serveTtrpc(keeper.sockets.daemon, new Map(serviceNames.map((name) => [name, handlers])), log));
  undo.defer(() => {
    clearInterval(timer);
    closing.abort();
  });
  return undo.move();
}

/** Ends pods and single containers whose bundle is gone: containerd removes it without notice when it gives one up. */
async function removeForgotten(parts: ShimParts): Promise<void> {
  const { tasks, log, closing } = parts;
  for (const task of tasks.all().filter(({ kind }) => kind !== 'container')) {
    if (!(await isGone(task.bundle.path))) continue;
    log.warn('task ended: containerd has removed its bundle', { task: task.id });
    try {
      await task.remove(closing);
      await forgetTask(parts, task);
      for (const container of tasks.all()) {
        if (sandboxIdOf(container.bundle.spec) !== task.id) continue;
        await container.remove(closing);
        await forgetTask(parts, container);
      }
    } catch (error) {
      log.error('task not removed', error, { task: task.id });
    }
  }
}

/** Returns true only if the bundle is absent; other errors may be temporary. */
async function isGone(path: string): Promise<boolean> {
  return await stat(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  );
}
