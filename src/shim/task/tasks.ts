import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Task, TaskProcess } from './process.ts';

/** More than a node has: 110 pods of a kubelet, with 1,000 containers each. */
const maxTasks = 110_000;
/** No real process has a larger pid (PID_MAX_LIMIT), so nothing of the host is found by one of these. */
const firstPid = 4_194_305;
const lastPid = 0x7fff_ffff;

/** The tasks of this process by their ids, which are unique in all namespaces of containerd. */
export class Tasks {
  readonly #tasks = new Map<string, Task>();
  /** Ids of tasks that are being made. */
  readonly #making = new Set<string>();
  #lastPid = firstPid - 1;
  #lastAttempt = -1;

  /** Errors: `notFound`. */
  get(id: string): Task {
    const task = this.#tasks.get(id);
    if (task === undefined) throw new PodvmError('notFound', `Cannot find task ${printable(id, 100)}`);
    return task;
  }

  /** A task's first process, or a command in it. Errors: `notFound`. */
  process(id: string, execId: string): TaskProcess {
    const task = this.get(id);
    if (execId === '') return task;
    const exec = task.execs.get(execId);
    if (exec === undefined) throw new PodvmError('notFound', `Cannot find command ${printable(execId, 100)} of ${id}`);
    return exec;
  }

  has(task: Task): boolean {
    return this.#tasks.get(task.id) === task;
  }

  all(): readonly Task[] {
    return [...this.#tasks.values()];
  }

  /** Errors: `alreadyExists`, `exhausted`, and those of `make`. */
  async add<T extends Task>(id: string, make: () => Promise<T>): Promise<T> {
    if (this.#tasks.has(id) || this.#making.has(id)) {
      throw new PodvmError('alreadyExists', `Cannot create task ${printable(id, 100)}: it exists`);
    }
    if (this.#tasks.size + this.#making.size >= maxTasks) {
      throw new PodvmError('exhausted', `Cannot create a task: ${maxTasks} exist already`, {
        fix: 'Remove some pods.',
      });
    }
    this.#making.add(id);
    try {
      const task = await make();
      this.#tasks.set(id, task);
      return task;
    } finally {
      this.#making.delete(id);
    }
  }

  /** Adds a task of an earlier daemon. `attempt`: the largest one in the names of its resources. */
  restore(task: Task, attempt: number): void {
    this.#tasks.set(task.id, task);
    if (task.pid >= firstPid) this.#lastPid = Math.max(this.#lastPid, task.pid);
    this.#lastAttempt = Math.max(this.#lastAttempt, attempt);
  }

  delete(task: Task): void {
    if (this.#tasks.get(task.id) === task) this.#tasks.delete(task.id);
  }

  /** Makes the names of sandboxes and containers unique: containerd has ids, and does not count them. */
  nextAttempt(): number {
    this.#lastAttempt += 1;
    return this.#lastAttempt;
  }

  /** A pid for containerd of a process that the host does not have. */
  nextPid(): number {
    this.#lastPid = this.#lastPid < lastPid ? this.#lastPid + 1 : firstPid;
    return this.#lastPid;
  }
}
