import { randomBytes } from 'node:crypto';
import type { PodOutcome } from '#api/pods.ts';
import type { Clock } from '#host/clock.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { Job } from '#pod/schema/workloads.ts';
import { podOfJob } from '#pod/manifest/workloads.ts';
import type { JobPod, JobProgress } from '../record/job-record.ts';
import type { LivePod } from './known-pod.ts';

export interface JobParts {
  readonly clock: Clock;
  /** Starts a pod of the Job. */
  readonly start: (pod: Pod) => LivePod;
  /** Records the progress for the next node. Never rejects. */
  readonly save: (progress: JobProgress) => Promise<void>;
  /** A client waits for its outcome: it ends with a pod that could not be created. */
  readonly isAwaited?: boolean;
}

/** A Job that an earlier process has begun. */
export interface BegunJob {
  readonly progress: JobProgress;
  /** What became of a pod of it: it runs here, has ended or will, or was lost with its machine or never started. */
  readonly find: (pod: string) => LivePod | Promise<PodOutcome | undefined>;
}

interface ActivePod extends JobPod {
  live?: LivePod;
}

/** Delays between a failure and the next pod, as in Kubernetes, in `ms`. */
const firstDelayMs = 10_000;
const longestDelayMs = 360_000;
/** Reasons of the end of a pod that never ran, and another like it would not either. */
const uncreated: readonly string[] = ['ErrImagePull', 'CreateContainerError', 'CreateContainerConfigError'];

/**
 * Runs a Job: starts its pods, as many at a time as it wants, until enough have succeeded or too many have failed. A pod is on
 * record before it starts, so that the next process counts each once. One that was lost with its machine while no
 * process served it has not failed: another takes its place.
 */
export class JobRun {
  /** Its outcome, when all its pods are over and that is on record. Never rejects. */
  readonly finished: Promise<PodOutcome>;
  /** Settles when the first pods have started. */
  readonly begun: Promise<void>;
  /** Settles when this process leaves it to the next one. */
  readonly left: Promise<void>;
  readonly job: Job;
  readonly #parts: JobParts;
  readonly #completions: number;
  readonly #settle: (outcome: PodOutcome) => void;
  readonly #startedMs: number;
  readonly #active = new Map<string, ActivePod>();
  /** Indexes whose pods have failed. */
  readonly #again: number[] = [];
  readonly #cancelDeadline: () => void;
  #nextIndex = 0;
  #succeeded = 0;
  #failed = 0;
  #notBeforeMs = 0;
  #cancelWake = () => {};
  #outcome: PodOutcome | undefined;
  readonly #leaving = Promise.withResolvers<void>();
  #hasLeft = false;

  constructor(job: Job, parts: JobParts, before?: BegunJob) {
    const { clock } = parts;
    this.job = job;
    this.#parts = parts;
    this.#completions = job.spec.completions ?? 1;
    this.#startedMs = before?.progress.startedMs ?? clock.now();
    const { promise, resolve } = Promise.withResolvers<PodOutcome>();
    this.finished = promise;
    this.#settle = resolve;
    this.left = this.#leaving.promise;
    this.#cancelDeadline = this.#setDeadline();
    if (before !== undefined) this.#takeUp(before);
    this.begun = this.#fill();
  }

  get outcome(): PodOutcome | undefined {
    return this.#outcome;
  }

  /** Ends its pods, and starts no others. */
  stop(how: 'terminate' | 'kill'): void {
    this.#end({ exitCode: 143, reason: 'Terminated' }, how);
  }

  /** Starts no more pods, and leaves those that run. */
  leave(): void {
    this.#hasLeft = true;
    this.#leaving.resolve();
    this.#cancelWake();
    this.#cancelDeadline();
  }

  #setDeadline(): () => void {
    const { clock } = this.#parts;
    const { activeDeadlineSeconds: seconds } = this.job.spec;
    if (seconds === undefined) return () => {};
    const leftMs = seconds * 1000 - Math.max(0, clock.now() - this.#startedMs);
    return clock.after(leftMs, () => this.#end({ exitCode: 124, reason: 'DeadlineExceeded' }));
  }

  #takeUp({ progress, find }: BegunJob): void {
    const { clock } = this.#parts;
    this.#again.push(...progress.again);
    this.#nextIndex = progress.nextIndex;
    this.#succeeded = progress.succeeded;
    this.#failed = progress.failed;
    const waitMs = Math.min(progress.notBeforeMs - clock.now(), longestDelayMs);
    this.#notBeforeMs = clock.monotonicMs() + waitMs;
    for (const pod of progress.active) {
      this.#active.set(pod.name, { ...pod });
      const found = find(pod.name);
      if (found instanceof Promise) void found.then((finish) => this.#podEnded(pod.name, finish));
      else this.#follow(pod.name, found);
    }
    if (progress.outcome !== undefined) this.#end(progress.outcome);
  }

  get #progress(): JobProgress {
    const { clock } = this.#parts;
    return {
      active: [...this.#active.values()].map(({ name, index }) => ({
        name,
        ...(index === undefined ? {} : { index }),
      })),
      again: [...this.#again],
      nextIndex: this.#nextIndex,
      succeeded: this.#succeeded,
      failed: this.#failed,
      startedMs: this.#startedMs,
      notBeforeMs: clock.now() + Math.max(0, this.#notBeforeMs - clock.monotonicMs()),
      ...(this.#outcome === undefined ? {} : { outcome: this.#outcome }),
    };
  }

  async #fill(): Promise<void> {
    this.#cancelWake();
    if (this.#outcome !== undefined || this.#hasLeft) return;
    const { clock, save } = this.#parts;
    const waitMs = this.#notBeforeMs - clock.monotonicMs();
    if (waitMs > 0) this.#cancelWake = clock.after(waitMs, () => void this.#fill());
    const planned = waitMs > 0 ? [] : this.#plan();
    await save(this.#progress);
    for (const pod of planned) this.#startOne(pod);
  }

  /** Names the pods that start now. */
  #plan(): readonly Pod[] {
    const { spec } = this.job;
    const planned: Pod[] = [];
    const wanted = Math.min(spec.parallelism, this.#completions - this.#succeeded);
    while (this.#active.size < wanted) {
      const index = spec.completionMode === 'Indexed' ? (this.#again.shift() ?? this.#nextIndex++) : undefined;
      const pod = podOfJob(this.job, index, randomBytes(3).toString('hex'));
      const { name } = pod.metadata;
      this.#active.set(name, { name, ...(index === undefined ? {} : { index }) });
      planned.push(pod);
    }
    return planned;
  }

  #startOne(pod: Pod): void {
    const { name } = pod.metadata;
    if (this.#hasLeft) return;
    if (this.#outcome !== undefined) {
      this.#active.delete(name);
      return this.#settleWhenOver();
    }
    try {
      this.#follow(name, this.#parts.start(pod));
    } catch (error) {
      this.#active.delete(name);
      this.#end({ exitCode: 125, reason: 'FailedCreate', message: String(error) });
    }
  }

  #follow(name: string, live: LivePod): void {
    const active = this.#active.get(name);
    if (active !== undefined) active.live = live;
    const leave = live.pod.onChange(() => this.#countRestarts(live));
    void live.over.then((finish) => {
      leave();
      this.#podEnded(name, finish);
    });
  }

  /** `finish`: undefined for a pod that was lost with its machine. */
  #podEnded(name: string, finish: PodOutcome | undefined): void {
    if (this.#hasLeft) return; // the next process counts it
    const index = this.#active.get(name)?.index;
    this.#active.delete(name);
    if (this.#outcome !== undefined) return this.#settleWhenOver();
    if (finish?.exitCode === 0) {
      this.#succeeded += 1;
      if (this.#succeeded === this.#completions) return this.#end({ exitCode: 0, reason: 'Completed' });
      return void this.#fill();
    }
    if (finish?.reason === 'Terminated' || finish?.reason === 'Killed') return this.#end(finish); // by a user
    if (index !== undefined) this.#again.push(index);
    if (finish === undefined) return void this.#fill();
    this.#failed += 1;
    if (this.#parts.isAwaited === true && uncreated.includes(finish.reason)) return this.#end(finish);
    if (this.#failed > this.job.spec.backoffLimit) {
      return this.#end({ exitCode: finish.exitCode, reason: 'BackoffLimitExceeded' });
    }
    const delayMs = Math.min(firstDelayMs * 2 ** (this.#failed - 1), longestDelayMs);
    this.#notBeforeMs = this.#parts.clock.monotonicMs() + delayMs;
    void this.#fill();
  }

  /** Restarts of containers count, too, as in Kubernetes. */
  #countRestarts({ pod }: LivePod): void {
    if (this.job.spec.template.spec.restartPolicy !== 'OnFailure') return;
    const { containers } = pod.status;
    const restarts = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
    if (restarts < Math.max(this.job.spec.backoffLimit, 1)) return;
    const code = containers.map(({ lastState }) => lastState?.exitCode ?? 0).find((exitCode) => exitCode !== 0) ?? 1;
    this.#end({ exitCode: code, reason: 'BackoffLimitExceeded' });
  }

  #end(outcome: PodOutcome, how: 'terminate' | 'kill' = 'terminate'): void {
    if (this.#hasLeft) return; // it is the next process's, whatever becomes of a client of this one
    this.#outcome ??= outcome;
    this.#cancelWake();
    this.#cancelDeadline();
    for (const { live } of this.#active.values()) void live?.pod[how]();
    this.#settleWhenOver();
  }

  #settleWhenOver(): void {
    if (this.#outcome === undefined) return;
    const [saved, outcome] = [this.#parts.save(this.#progress), this.#outcome];
    if (this.#active.size === 0) void saved.then(() => this.#settle(outcome));
  }
}
