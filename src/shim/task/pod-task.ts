import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import { openDeadline } from '#host/deadline.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { SandboxStats } from '#sandbox/figures/sandbox-stats.ts';
import type { Bundle } from '../bundle/bundle.ts';
import type { IoPaths } from '../io/fifos.ts';
import { type Figures, podFiguresOf } from '../translate/metrics.ts';
import { resourcesOf } from '../translate/resources.ts';
import type { OciResources } from '../bundle/oci-spec.ts';
import type { Task, TaskProcess } from './process.ts';
import { ProcessLife } from './process-life.ts';

export interface PodTaskParts {
  readonly id: string;
  readonly pid: number;
  readonly bundle: Bundle;
  readonly paths: IoPaths;
  readonly sandbox: Sandbox;
  readonly life?: ProcessLife;
  readonly log: Log;
}

/** Greatest age of figures, in `ms`. */
const figuresMs = 500;
const measureTimeoutMs = 5_000;
/** Greatest age of figures that stand for those of a guest which is too busy to answer in time, in `ms`. */
const staleMs = 15_000;
const sigKill = 9;
/** Grace of a pod that is not killed at once, in `ms`: its containers were stopped before. */
const graceMs = 2_000;
/** 128 + SIGKILL: how the process that stands for a pod ends. */
const killedStatus = 137;

/** A pod: the machine stands for the process `pause` of other runtimes. */
export class PodTask implements Task {
  readonly id: string;
  readonly pid: number;
  readonly bundle: Bundle;
  readonly paths: IoPaths;
  readonly kind = 'pod';
  readonly sandboxId: string;
  readonly life: ProcessLife;
  readonly sandbox: Sandbox;
  readonly execs = new Map<string, TaskProcess>();
  /** Whether its ports are forwarded, or about to be. */
  hasPorts = false;
  /** Settles when connections to its ports wait for that. */
  portsHeld: Promise<void> = Promise.resolve();
  readonly #log: Log;
  #measured: Promise<SandboxStats> | undefined;
  #measuredMs = 0;
  #last: { readonly stats: SandboxStats; readonly atMs: number } | undefined;

  constructor({ id, pid, bundle, paths, sandbox, life = new ProcessLife(), log }: PodTaskParts) {
    this.id = id;
    this.pid = pid;
    this.bundle = bundle;
    this.paths = paths;
    this.sandbox = sandbox;
    this.sandboxId = sandbox.id;
    this.life = life;
    this.#log = log;
    void sandbox.ended.then(() => this.life.end({ status: killedStatus, at: new Date() }));
  }

  /** Does nothing, since the machine runs already. */
  start(): Promise<void> {
    this.life.start();
    return Promise.resolve();
  }

  /** Begins to end it; it exits when all its parts are gone. */
  kill(signalNumber: number): Promise<void> {
    void this.sandbox.stop(signalNumber === sigKill ? 0 : graceMs);
    return Promise.resolve();
  }

  resize(): Promise<void> {
    return Promise.resolve();
  }

  endInput(): void {}

  async figures(signal: AbortSignal): Promise<Figures | undefined> {
    return this.life.state === 'running' ? podFiguresOf(await this.measure(signal)) : undefined;
  }

  /**
   * Figures of the machine, which all of its tasks share: containerd requests those of each in turn, every second. The last
   * ones apply when the guest is too busy to answer: without an answer, containerd fails a request for one container.
   */
  async measure(signal: AbortSignal): Promise<SandboxStats> {
    if (this.#measured === undefined || performance.now() - this.#measuredMs > figuresMs) {
      this.#measuredMs = performance.now();
      this.#measured = this.#measureNow();
      this.#measured.catch(() => (this.#measured = undefined));
    }
    try {
      return await untilAborted(this.#measured, signal);
    } catch (error) {
      if (!signal.aborted || this.#last === undefined || performance.now() - this.#last.atMs > staleMs) throw error;
      return this.#last.stats;
    }
  }

  /** Uses its own deadline: the first caller's must not end it for the others. */
  async #measureNow(): Promise<SandboxStats> {
    using deadline = openDeadline(measureTimeoutMs);
    const stats = await this.sandbox.stats(deadline.signal);
    this.#last = { stats, atMs: performance.now() };
    return stats;
  }

  async update(resources: OciResources, signal: AbortSignal): Promise<void> {
    for (const warning of await this.sandbox.resize(resourcesOf(resources), signal)) {
      this.#log.warn('a limit was reduced', { pod: this.id, warning });
    }
  }

  makeExec(): TaskProcess {
    throw new PodvmError('unsupported', `Cannot run a command in pod ${this.id}: it has no process of its own`, {
      fix: 'Run it in one of its containers.',
    });
  }

  async remove(): Promise<void> {
    await this.sandbox.remove();
  }
}
