import type { Clock } from '#host/clock.ts';
import type { Job } from '#pod/schema/workloads.ts';
import type { Activity } from './activity.ts';
import { type JobParts, JobRun } from './job-run.ts';

/** A Job and its newest run; a run that is over is forgotten, with the Secrets that its pods had. */
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

  constructor(clock: Clock, activity: Activity) {
    this.#clock = clock;
    this.#activity = activity;
  }

  /** Runs a Job. `start`: starts a pod of it. */
  run(job: Job, start: JobParts['start']): JobRun {
    const active = this.#activity.begin();
    const run = new JobRun(job, { clock: this.#clock, start });
    const { namespace, name } = job.metadata;
    const key = `${namespace}/${name}`;
    this.#jobs.delete(key);
    this.#jobs.set(key, { job, run });
    const [oldest] = this.#jobs.keys();
    if (oldest !== undefined && this.#jobs.size > maxJobs) this.#jobs.delete(oldest);
    void run.finished.then(() => {
      active[Symbol.dispose]();
      if (this.#jobs.get(key)?.run === run) this.#jobs.set(key, { job });
    });
    return run;
  }

  find(namespace: string, name: string): KnownJob | undefined {
    return this.#jobs.get(`${namespace}/${name}`);
  }

  /** Ends all Jobs with their pods. */
  stop(): void {
    for (const { run } of this.#jobs.values()) run?.stop('terminate');
  }

  /** Starts no more pods, and leaves those that run. */
  leave(): void {
    for (const { run } of this.#jobs.values()) run?.leave();
  }
}
