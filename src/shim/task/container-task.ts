import { writeFile } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { rawText } from '#base/guest-text.ts';
import { within } from '#host/wait.ts';
import type { Log } from '#host/log/log.ts';
import type { Container } from '#sandbox/sandbox.ts';
import type { Bundle } from '../bundle/bundle.ts';
import type { OciResources } from '../bundle/oci-spec.ts';
import type { Input, IoPaths } from '../io/fifos.ts';
import type { FifoKeeper } from '../io/fifo-keeper.ts';
import type { Figures } from '../translate/metrics.ts';
import { resourcesOf } from '../translate/resources.ts';
import { ExecProcess } from './exec-process.ts';
import type { PodTask } from './pod-task.ts';
import type { ExecRequest, Task, TaskProcess } from './process.ts';
import { ProcessLife } from './process-life.ts';

export interface ContainerTaskParts {
  readonly id: string;
  readonly pid: number;
  readonly bundle: Bundle;
  readonly paths: IoPaths;
  readonly pod: PodTask;
  /** Whether the pod was made for this container only. */
  readonly ownsPod: boolean;
  readonly container: Container;
  readonly input: Input | undefined;
  readonly keeper: FifoKeeper;
  readonly life?: ProcessLife;
  /** Aborts when the daemon ends, which is no end of the container. */
  readonly closing: AbortSignal;
  /** File of the host for its termination message; undefined: there is none. */
  readonly messagePath: string | undefined;
  /** Reports that a process of it was killed for lack of memory. */
  readonly onOutOfMemory: () => Promise<void>;
  readonly log: Log;
}

/** Wait for containerd to take the event of an exit's reason, which must come before the exit, in `ms`. */
const tellTimeoutMs = 2_000;
const sigKill = 9;
/** SIGINT, SIGQUIT, SIGKILL and SIGTERM, with which containerd ends a container. */
const ends: ReadonlySet<number> = new Set([2, 3, 9, 15]);

/** A container of a pod, or one with a machine of its own. */
export class ContainerTask implements Task {
  readonly id: string;
  readonly pid: number;
  readonly bundle: Bundle;
  readonly paths: IoPaths;
  readonly kind: 'container' | 'single';
  readonly sandboxId: string;
  readonly containerId: string;
  readonly life: ProcessLife;
  /** The pod; for a single container, one that containerd does not know. */
  readonly pod: PodTask;
  readonly execs = new Map<string, TaskProcess>();
  readonly #parts: ContainerTaskParts;

  constructor(parts: ContainerTaskParts) {
    const { container, input, life = new ProcessLife(), closing } = parts;
    this.id = parts.id;
    this.pid = parts.pid;
    this.bundle = parts.bundle;
    this.paths = parts.paths;
    this.kind = parts.ownsPod ? 'single' : 'container';
    this.sandboxId = parts.pod.sandboxId;
    this.containerId = container.status.id;
    this.life = life;
    this.pod = parts.pod;
    this.#parts = parts;
    if (container.stdin !== undefined) input?.feed(container.stdin);
    if (life.exit === undefined) void container.exited.then((exit) => this.#end(exit));
    const { ended } = container.follow(() => Promise.resolve());
    void Promise.all([ended, container.exited]).then(() => (closing.aborted ? undefined : this.#endOutput()));
  }

  /** Clients read its end only when all writers have closed. */
  async #endOutput(): Promise<void> {
    const { input, keeper } = this.#parts;
    input?.close();
    for (const path of [this.paths.stdout, this.paths.stderr]) if (path !== '') await keeper.end(path);
  }

  async #end({ exitCode, reason, message, finishedAt }: Awaited<Container['exited']>): Promise<void> {
    const { messagePath, onOutOfMemory, log } = this.#parts;
    if (reason === 'OOMKilled') await within(onOutOfMemory(), { ms: tellTimeoutMs });
    if (messagePath !== undefined && message !== undefined) {
      await writeFile(messagePath, rawText(message)).catch((error: unknown) =>
        log.error('termination message not written', error, { container: this.id }),
      );
    }
    this.life.end({ status: exitCode, at: finishedAt });
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#parts.container.start(signal);
    this.life.start();
  }

  async kill(signalNumber: number, signal: AbortSignal): Promise<void> {
    const { container, pod } = this.#parts;
    const isLeft = pod.sandbox.status.leftAlone !== undefined && ends.has(signalNumber);
    // One that was never started has no process yet, and one that is left alone ends with its machine: both are stopped.
    if (container.status.state === 'created' || isLeft) await container.stop(0, signal);
    else await container.kill(signalNumber, signal);
  }

  async resize(columns: number, rows: number, signal: AbortSignal): Promise<void> {
    await this.#parts.container.resize(columns, rows, signal);
  }

  endInput(): void {
    this.#parts.input?.release();
  }

  async figures(signal: AbortSignal): Promise<Figures | undefined> {
    const { pod, container } = this.#parts;
    if (this.life.state !== 'running') return undefined;
    const { containers } = await pod.measure(signal);
    return containers.find(({ id }) => id === container.status.id);
  }

  async update(resources: OciResources, signal: AbortSignal): Promise<void> {
    const { pod, ownsPod, container, log } = this.#parts;
    if (ownsPod) await pod.update(resources, signal);
    for (const warning of await container.update(resourcesOf(resources), signal)) {
      log.warn('a limit was reduced', { container: this.id, warning });
    }
  }

  makeExec(request: ExecRequest): TaskProcess {
    if (this.life.state !== 'running') {
      throw new PodvmError(
        'failedPrecondition',
        `Cannot run a command in container ${this.id}: it is ${this.life.state}`,
      );
    }
    return new ExecProcess(request, this.#parts.container);
  }

  async remove(signal: AbortSignal): Promise<void> {
    const { container, input, keeper, pod, ownsPod } = this.#parts;
    if (ownsPod) await pod.remove();
    else if (pod.sandbox.state === 'ready') {
      if (this.life.state === 'created') {
        await this.kill(sigKill, signal); // runc's shim deletes a task that was never started, too
        await this.life.exited;
      }
      await container.remove(signal);
    }
    input?.close();
    const { stdin, stdout, stderr } = this.paths;
    for (const path of [stdin, stdout, stderr]) if (path !== '') await keeper.forget(path);
  }
}
