import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { messageOf } from '#base/errors.ts';
import type { ShimParts } from './parts.ts';
import { TaskExitSchema } from './schema/generated/events/task_pb.ts';
import type { PodTask } from './task/pod-task.ts';
import type { Task } from './task/process.ts';
import type { ProcessExit } from './task/process-life.ts';

type TrackParts = Pick<ShimParts, 'records' | 'tasks' | 'events' | 'closing'>;

/**
 * Records a task for the next daemon, and reports its exit to containerd. Settles when it is on record: containerd does
 * not learn of a task before. `isExitTold`: an earlier daemon has reported the exit.
 */
export async function keepTrack(parts: TrackParts, task: Task, isExitTold = false): Promise<void> {
  await recordTask(parts, task, isExitTold);
  if (isExitTold) return;
  void task.life.exited.then(async (exit) => {
    await recordTask(parts, task);
    await tellExit(parts, task, task.id, task.pid, exit);
    if (!parts.closing.aborted) await recordTask(parts, task, true);
  });
}

export async function recordTask({ records, tasks }: TrackParts, task: Task, isExitTold = false): Promise<void> {
  if (!tasks.has(task)) return; // it was deleted meanwhile
  const { id, kind, pid, bundle, paths, sandboxId, containerId, life } = task;
  const { exit } = life;
  await records.save(id, {
    version: 1,
    ...{ kind, pid, sandboxId },
    ...(containerId === undefined ? {} : { containerId }),
    bundle: bundle.path,
    ...(bundle.eventsSocket === undefined ? {} : { eventsSocket: bundle.eventsSocket }),
    io: { ...paths },
    isStarted: life.hasStarted,
    ...(exit === undefined ? {} : { exit: { status: exit.status, at: exit.at.toISOString() } }),
    isExitTold,
  });
}

export async function forgetTask({ records, tasks }: Pick<TrackParts, 'records' | 'tasks'>, task: Task): Promise<void> {
  tasks.delete(task);
  await records.remove(task.id);
}

/** Lets connections to ports of a new pod wait until these are forwarded. */
export function holdPorts({ ports, log }: Pick<ShimParts, 'ports' | 'log'>, pod: PodTask): void {
  const { sandbox } = pod;
  pod.portsHeld = ports.hold(sandbox).catch((error: unknown) => {
    const fields = { sandbox: sandbox.id, why: messageOf(error) };
    if (sandbox.state === 'ready') log.warn('port-forward is refused for the first moment of a pod', fields);
  });
}

/** Begins to forward the ports of a pod, once, until it or the daemon ends. */
export function openPorts({ ports, closing, log }: Pick<ShimParts, 'ports' | 'closing' | 'log'>, pod: PodTask): void {
  const { sandbox } = pod;
  if (pod.hasPorts || sandbox.state !== 'ready') return;
  pod.hasPorts = true;
  ports.forward(sandbox, log).then(
    (forwarding) => {
      const end = () => forwarding[Symbol.dispose]();
      closing.addEventListener('abort', end, { once: true });
      if (closing.aborted) end();
      void sandbox.ended.then(() => {
        closing.removeEventListener('abort', end);
        end();
      });
    },
    (error: unknown) => {
      pod.hasPorts = false; // its next container tries again
      if (sandbox.state === 'ready')
        log.warn('port-forward does not reach a pod', { sandbox: sandbox.id, why: messageOf(error) });
    },
  );
}

/** `id`: the task's, or a command's in it. */
export async function tellExit({ events }: TrackParts, task: Task, id: string, pid: number, exit: ProcessExit) {
  await events.tell(task.bundle, '/tasks/exit', TaskExitSchema, { containerId: task.id, id, pid, ...exitOf(exit) });
}

export const exitOf = (exit: ProcessExit | undefined) =>
  exit === undefined ? {} : { exitStatus: exit.status, exitedAt: timestampFromDate(exit.at) };
