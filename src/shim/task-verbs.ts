import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { openDeadline } from '#host/deadline.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { parse } from './bundle/bundle.ts';
import { processSchema, resourcesSchema } from './bundle/oci-spec.ts';
import { createTask } from './create-task.ts';
import { exitOf, forgetTask, keepTrack, openPorts, recordTask, tellExit } from './keep-track.ts';
import type { ShimParts } from './parts.ts';
import {
  TaskCreateSchema,
  TaskDeleteSchema,
  TaskExecAddedSchema,
  TaskExecStartedSchema,
  TaskStartSchema,
} from './schema/generated/events/task_pb.ts';
import type { ExecProcessRequest, Task as TaskService } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from './schema/generated/types/task/task_pb.ts';
import { ContainerTask } from './task/container-task.ts';
import type { Task } from './task/process.ts';
import type { ProcessState } from './task/process-life.ts';
import { metricsOf } from './translate/metrics.ts';
import type { Verbs } from './ttrpc/service.ts';

/** Timeout of figures, in `ms`. Containerd requests those of all tasks in turn: a hung guest must not delay it. */
const statsTimeoutMs = 1_000;
const maxExecs = 1_000;

const statusOfState = {
  created: Status.CREATED,
  running: Status.RUNNING,
  stopped: Status.STOPPED,
} as const satisfies Record<ProcessState, Status>;

/** Implements the verbs of containerd's task API. */
export function taskVerbs(parts: ShimParts): Verbs<typeof TaskService> {
  const { tasks, events, log } = parts;
  return {
    async create(request, signal) {
      const task = await createTask(parts, request, signal);
      const { id, bundle, pid, paths } = task;
      const { rootfs } = request;
      void events.tell(bundle, '/tasks/create', TaskCreateSchema, {
        ...{ containerId: id, bundle: bundle.path, rootfs, pid, io: paths },
      });
      await keepTrack(parts, task);
      log.info('task created', { task: id, namespace: bundle.namespace });
      return { pid };
    },

    async start({ id, execId }, signal) {
      const task = tasks.get(id);
      const process = tasks.process(id, execId);
      await untilAborted(process.start(signal), signal);
      const { pid } = process;
      if (execId === '') {
        void events.tell(task.bundle, '/tasks/start', TaskStartSchema, { containerId: id, pid });
        await recordTask(parts, task);
        if (task instanceof ContainerTask && task.kind === 'container') {
          await task.pod.portsHeld; // it began when the pod was made
          // After the answer: the process that makes the listener takes as long as the container.
          setImmediate(openPorts, parts, task.pod);
        }
      } else
        void events.tell(task.bundle, '/tasks/exec-started', TaskExecStartedSchema, { containerId: id, execId, pid });
      return { pid };
    },

    state({ id, execId }) {
      const task = tasks.get(id);
      const { pid, paths, life } = tasks.process(id, execId);
      const about = { id: execId === '' ? id : execId, execId, bundle: task.bundle.path, pid };
      return Promise.resolve({ ...about, status: statusOfState[life.state], ...paths, ...exitOf(life.exit) });
    },

    async wait({ id, execId }, signal) {
      return exitOf(await untilAborted(tasks.process(id, execId).life.exited, signal));
    },

    async kill({ id, execId, signal: number }, signal) {
      const process = tasks.process(id, execId);
      if (process.life.state === 'stopped') {
        throw new PodvmError('notFound', `Cannot send a signal to ${printable(id, 100)}: it has ended`);
      }
      await process.kill(number, signal);
      return {};
    },

    async delete({ id, execId }, signal) {
      const task = tasks.get(id);
      const process = tasks.process(id, execId);
      if (process.life.state === 'running') {
        throw new PodvmError('failedPrecondition', `Cannot delete ${printable(id, 100)}: it is running`);
      }
      await process.remove(signal);
      if (execId === '') await forgetTask(parts, task);
      else task.execs.delete(execId);
      const about = { pid: process.pid, ...exitOf(process.life.exit) };
      if (execId === '') {
        void events.tell(task.bundle, '/tasks/delete', TaskDeleteSchema, { containerId: id, id, ...about });
      }
      return about;
    },

    exec(request) {
      const task = tasks.get(request.id);
      const { execId } = request;
      if (execId === '' || task.execs.has(execId)) {
        throw new PodvmError('alreadyExists', `Cannot add the command ${printable(execId, 100)}: it exists`);
      }
      if (task.execs.size >= maxExecs) {
        throw new PodvmError('exhausted', `Cannot add a command to ${task.id}: it has ${maxExecs}`, {
          fix: 'End some of them.',
        });
      }
      const exec = makeExec(task, request, tasks.nextPid());
      task.execs.set(execId, exec);
      void events.tell(task.bundle, '/tasks/exec-added', TaskExecAddedSchema, { containerId: task.id, execId });
      void exec.life.exited.then((exit) => tellExit(parts, task, execId, exec.pid, exit));
      return Promise.resolve({});
    },

    async resizePty({ id, execId, width, height }, signal) {
      await tasks.process(id, execId).resize(width, height, signal);
      return {};
    },

    closeIO({ id, execId, stdin }) {
      if (stdin) tasks.process(id, execId).endInput();
      return Promise.resolve({});
    },

    /** Never empty: after its restart, containerd takes a task without processes for one that is lost. */
    pids({ id }) {
      const task = tasks.get(id);
      const running = [...task.execs.values()].filter(({ life }) => life.state === 'running');
      return Promise.resolve({ processes: [task, ...running].map(({ pid }) => ({ pid })) });
    },

    connect({ id }) {
      return Promise.resolve({ shimPid: process.pid, taskPid: tasks.get(id).pid, version: 'v2' });
    },

    async stats({ id }, signal) {
      using deadline = openDeadline(statsTimeoutMs, signal);
      const figures = await tasks.get(id).figures(deadline.signal);
      if (figures === undefined)
        throw new PodvmError('notFound', `Cannot measure ${printable(id, 100)}: it is not running`);
      return { stats: metricsOf(figures) };
    },

    async update({ id, resources }, signal) {
      const json = new TextDecoder().decode(resources?.value);
      await tasks.get(id).update(parse(resourcesSchema, json, `the new limits of ${id}`), signal);
      return {};
    },

    /** Answers a request that follows each deleted task; other tasks are still served. */
    shutdown: () => Promise.resolve({}),

    pause: ({ id }) => refuse('pause', id),
    resume: ({ id }) => refuse('resume', id),
    checkpoint: ({ id }) => refuse('checkpoint', id),
  };
}

function makeExec(task: Task, { execId, spec, stdin, stdout, stderr, terminal }: ExecProcessRequest, pid: number) {
  const json = new TextDecoder().decode(spec?.value);
  const { args, env, cwd, user, consoleSize } = parse(processSchema, json, `the command ${execId}`);
  const own = task.bundle.spec.process.user;
  if (user.uid !== own.uid || user.gid !== own.gid) {
    throw new PodvmError('unsupported', `Cannot run a command in ${task.id} as user ${user.uid}:${user.gid}`, {
      fix: `Run it as the container's own user, ${own.uid}:${own.gid}.`,
    });
  }
  return task.makeExec({
    id: execId,
    pid,
    paths: { stdin, stdout, stderr, terminal },
    command: args ?? [],
    env: env ?? [],
    workingDir: cwd,
    ...(consoleSize ? { size: { columns: consoleSize.width, rows: consoleSize.height } } : {}),
  });
}

const refuse = (verb: string, id: string): Promise<never> =>
  Promise.reject(new PodvmError('unsupported', `Cannot ${verb} ${printable(id, 100)}: podvm does not do that yet`));
