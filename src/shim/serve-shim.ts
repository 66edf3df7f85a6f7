import { stat } from 'node:fs/promises';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import { Events } from './events.ts';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { PodTask } from './task/pod-task.ts';
import { Tasks } from './task/tasks.ts';
import { sandboxIdOf } from './translate/sandbox-spec.ts';
import { taskVerbs } from './task-verbs.ts';
import { handlersOf } from './ttrpc/service.ts';
import { serveTtrpc } from './ttrpc/server.ts';

export interface ShimOptions {
  readonly socketPath: string;
  readonly sandboxes: Pick<Sandboxes, 'run'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Interval at which pods that containerd has forgotten are looked for, in `ms`; default 60,000. */
  readonly forgottenMs?: number;
}

/** The service in its second and third version, which have the same messages. */
const serviceNames = [Task.typeName, 'containerd.task.v3.Task'];

/**
 * Serves containerd's task API on a unix socket until it is disposed, for all tasks of the node. Its pods end then.
 * Errors: those of `serveTtrpc`.
 */
export async function serveShim(options: ShimOptions): Promise<AsyncDisposable> {
  const { socketPath, sandboxes, clock, log, forgottenMs = 60_000 } = options;
  await using undo = new AsyncDisposableStack();
  const tasks = new Tasks();
  const events = undo.use(new Events(clock, log));
  const handlers = handlersOf(Task, taskVerbs({ sandboxes, tasks, events, log }));
  const closing = new AbortController();
  const timer = setInterval(() => void removeForgotten(tasks, log, closing.signal), forgottenMs).unref();
  undo.defer(() => {
    clearInterval(timer);
    closing.abort();
  });
  undo.use(await serveTtrpc(socketPath, new Map(serviceNames.map((name) => [name, handlers])), log));
  return undo.move();
}

/** Ends pods whose bundle is gone: containerd removes it when it gives a pod up, and does not tell. */
async function removeForgotten(tasks: Tasks, log: Log, signal: AbortSignal): Promise<void> {
  for (const pod of tasks.all().filter((task) => task instanceof PodTask)) {
    if (!(await isGone(pod.bundle.path))) continue;
    log.warn('pod ended: containerd has removed its bundle', { task: pod.id });
    try {
      await pod.remove();
      for (const task of tasks.all()) {
        if (task !== pod && sandboxIdOf(task.bundle.spec) !== pod.id) continue;
        await task.remove(signal);
        tasks.delete(task);
      }
    } catch (error) {
      log.error('pod not removed', error, { task: pod.id });
    }
  }
}

/** False for any other error than that it is absent, which may pass. */
async function isGone(path: string): Promise<boolean> {
  return await stat(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  );
}
