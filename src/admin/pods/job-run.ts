import { randomBytes } from 'node:crypto';
import type { Clock } from '#host/clock.ts';
import type { PodFinish } from '#pod/pods.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { Job } from '#pod/schema/workloads.ts';
import { podOfJob } from '#pod/manifest/workloads.ts';
import type { LivePod } from './known-pod.ts';

export interface JobParts {
  readonly clock: Clock;
  /** Starts a pod of the Job. */
  readonly start: (pod: Pod) => LivePod;
}

/** Delays between a failure and the next pod, as in Kubernetes, in `ms`. */
const firstDelayMs = 10_000;
const longestDelayMs = 360_000;

/** Runs a Job: starts its pods, as many at a time as it wants, until enough have succeeded or too many have failed. */
export class JobRun {
  /** Its outcome, when all its pods are over. Never rejects. */
  readonly finished: Promise<PodFinish>;
  readonly #job: Job;
  readonly #parts: JobParts;
  readonly #completions: number;
  readonly #settle: (outcome: PodFinish) => void;
  readonly #active = new Map<LivePod, number | undefined>();
  /** Indexes whose pods have failed. */
  readonly #again: number[] = [];
  readonly #cancelDeadline: () => void;
  #nextIndex = 0;
  #succeeded = 0;
  #failed = 0;
  #notBeforeMs = 0;
  #cancelWake = () => {};
  #outcome: PodFinish | undefined;
  #hasLeft = false;

  /** Starts the first pods at once, so that the caller can follow them from their beginning. */
  constructor(job: Job, parts: JobParts) {
    const { completions = 1, activeDeadlineSeconds: deadline } = job.spec;
    this.#job = job;
    this.#parts = parts;
    this.#completions = completions;
    const { promise, resolve } = Promise.withResolvers<PodFinish>();
    this.finished = promise;
    this.#settle = resolve;
    this.#cancelDeadline =
      deadline === undefined
        ? () => {}
        : parts.clock.after(deadline * 1000, () => this.#end({ exitCode: 124, reason: 'DeadlineExceeded' }));
    this.#fill();
  }

  /** Ends its pods, and starts no others. */
  stop(how: 'terminate' | 'kill'): void {
    this.#end({ exitCode: 143, reason: 'Terminated' }, how);
  }

  /** Starts no more pods, and leaves those that run. */
  leave(): void {
    this.#hasLeft = true;
    this.#cancelWake();
    this.#cancelDeadline();
  }

  #fill(): void {
    this.#cancelWake();
    if (this.#outcome !== undefined || this.#hasLeft) return;
    const { clock } = this.#parts;
    const waitMs = this.#notBeforeMs - clock.monotonicMs();
    if (waitMs > 0) {
      this.#cancelWake = clock.after(waitMs, () => this.#fill());
      return;
    }
    const wanted = Math.min(this.#job.spec.parallelism, this.#completions - this.#succeeded);
    while (this.#active.size < wanted && this.#outcome === undefined) this.#startOne();
  }

  #startOne(): void {
    const index = this.#job.spec.completionMode === 'Indexed' ? (this.#again.shift() ?? this.#nextIndex++) : undefined;
    try {
      const live = this.#parts.start(podOfJob(this.#job, index, randomBytes(3).toString('hex')));
      this.#active.set(live, index);
      const leave = live.pod.onChange(() => this.#countRestarts(live));
      void live.over.then((finish) => {
        leave();
        this.#podEnded(live, finish);
      });
    } catch (error) {
      this.#end({ exitCode: 125, reason: 'FailedCreate', message: String(error) });
    }
  }

  #podEnded(live: LivePod, finish: PodFinish): void {
    const index = this.#active.get(live);
    this.#active.delete(live);
    if (this.#outcome !== undefined) return this.#settleWhenOver();
    if (finish.exitCode === 0) {
      this.#succeeded += 1;
      if (this.#succeeded === this.#completions) return this.#end({ exitCode: 0, reason: 'Completed' });
      return this.#fill();
    }
    if (finish.reason === 'Terminated' || finish.reason === 'Killed') return this.#end(finish); // by a user
    this.#failed += 1;
    if (index !== undefined) this.#again.push(index);
    if (this.#failed > this.#job.spec.backoffLimit) {
      return this.#end({ exitCode: finish.exitCode, reason: 'BackoffLimitExceeded' });
    }
    const delayMs = Math.min(firstDelayMs * 2 ** (this.#failed - 1), longestDelayMs);
    this.#notBeforeMs = this.#parts.clock.monotonicMs() + delayMs;
    this.#fill();
  }

  /** Restarts of containers count, too, as in Kubernetes. */
  #countRestarts({ pod }: LivePod): void {
    if (this.#job.spec.template.spec.restartPolicy !== 'OnFailure') return;
    const { containers } = pod.status;
    const restarts = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
    if (restarts < Math.max(this.#job.spec.backoffLimit, 1)) return;
    const code = containers.map(({ lastState }) => lastState?.exitCode ?? 0).find((exitCode) => exitCode !== 0) ?? 1;
    this.#end({ exitCode: code, reason: 'BackoffLimitExceeded' });
  }

  #end(outcome: PodFinish, how: 'terminate' | 'kill' = 'terminate'): void {
    this.#outcome ??= outcome;
    this.#cancelWake();
    this.#cancelDeadline();
    for (const { pod } of this.#active.keys()) void pod[how]();
    this.#settleWhenOver();
  }

  #settleWhenOver(): void {
    if (this.#outcome !== undefined && this.#active.size === 0) this.#settle(this.#outcome);
  }
}
