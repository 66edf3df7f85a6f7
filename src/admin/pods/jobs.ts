import type { Clock } from '#host/clock.ts';
import { jobLabel } from '#pod/manifest/workloads.ts';
import type { Job } from '#pod/schema/workloads.ts';
import type { Activity } from '../activity.ts';
import { type JobParts, JobRun } from './job-run.ts';
import type { NodePods } from './node-pods.ts';

/**
 * A Job and its newest run. A run that is over is forgotten, with the Secrets that its pods had, and with it a Job that was
 * not applied.
 */
export interface KnownJob {
  readonly job: Job;
  readonly run?: JobRun;
}

/** Number of Jobs that are remembered. */
const maxJobs = 1000;

/** The Jobs of this process, also those that are over. They keep the node from its idle end. */
export class Jobs {
  readonly #clock: Clock;
  readonly #activity: Activity;
  readonly #jobs = new Map<string, KnownJob>();
  /** All that go on, also several of one name. */
  readonly #runs = new Set<JobRun>();

  constructor(clock: Clock, activity: Activity) {
    this.#clock = clock;
    this.#activity = activity;
  }

  /** Runs a Job. `start`: starts a pod of it. */
  run(job: Job, start: JobParts['start'], { isApplied = false } = {}): JobRun {
    const active = this.#activity.begin();
    const run = new JobRun(job, { clock: this.#clock, start });
    this.#runs.add(run);
    const key = keyOf(job);
    this.#jobs.delete(key);
    this.#jobs.set(key, { job, run });
    const [oldest] = this.#jobs.keys();
    if (oldest !== undefined && this.#jobs.size > maxJobs) this.#jobs.delete(oldest);
    void run.finished.then(() => {
      active[Symbol.dispose]();
      this.#runs.delete(run);
      if (this.#jobs.get(key)?.run !== run) return;
      if (isApplied) this.#jobs.set(key, { job });
      else this.#jobs.delete(key);
    });
    return run;
  }

  /** Ends a Job with its pods, and forgets it. Returns whether it was known. */
  remove(job: Job): boolean {
    const key = keyOf(job);
    this.#jobs.get(key)?.run?.stop('terminate');
    return this.#jobs.delete(key);
  }

  find(job: Job): KnownJob | undefined {
    return this.#jobs.get(keyOf(job));
  }

  /** Ends all Jobs with their pods. */
  stop(): void {
    for (const run of this.#runs) run.stop('terminate');
  }

  /** Starts no more pods, and leaves those that run. */
  leave(): void {
    for (const run of this.#runs) run.leave();
  }
}

const keyOf = ({ metadata: { namespace, name } }: Job): string => `${namespace}/${name}`;

/** Whether a pod with these labels is one of a Job. */
export const isOfJob = (
  { metadata: { namespace, name } }: Job,
  pod: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> },
): boolean => pod.namespace === namespace && pod.labels[jobLabel] === name;

/** Whether pods of the Job run, or are kept after their end. */
export const hasPods = (job: Job, pods: NodePods): boolean =>
  pods.live().some(({ pod: { pod } }) => isOfJob(job, pod.metadata)) ||
  pods.ended().some(({ namespace, details: { labels } }) => isOfJob(job, { namespace, labels }));
