import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { PodOutcome } from '#api/pods.ts';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { jobLabel } from '#pod/manifest/workloads.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { Job } from '#pod/schema/workloads.ts';
import type { Activity } from '../activity.ts';
import {
  type JobProgress,
  JobRecord,
  openJobRecords,
  readJobs,
  type RecordedJob,
  type WorkloadSource,
} from '../record/job-record.ts';
import { type BegunJob, JobRun } from './job-run.ts';
import { secretsEnded } from '../record/ended-pods.ts';
import type { StartOptions } from '../record/ended-record.ts';
import { type LivePod, onlyOf } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';

export interface JobsParts {
  /** Directory of their records; undefined: they end with this process. */
  readonly directory: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly activity: Activity;
  readonly pods: NodePods;
}

/** How a Job is begun. */
export interface JobBeginning extends Pick<StartOptions, 'awaited'> {
  readonly source: WorkloadSource;
  readonly removeAtEnd?: boolean;
  readonly isApplied?: boolean;
  /** Is told of its pods. */
  readonly onStart?: (live: LivePod) => void;
}

type Client = Pick<JobBeginning, 'awaited' | 'onStart'>;

/**
 * A Job and its newest run. A run that is over is forgotten, with the Secrets that its pods had, and with it a Job that was
 * not applied.
 */
export interface KnownJob {
  readonly job: Job;
  readonly run?: JobRun;
  /** Of one that is over. */
  readonly outcome?: PodOutcome;
  readonly record?: JobRecord | undefined;
}

/** Number of Jobs that are remembered. */
const maxJobs = 1000;

/** The Jobs of this process and of those before, also those that are over. They keep the node from its idle end. */
export class Jobs implements AsyncDisposable {
  readonly #parts: JobsParts;
  readonly #jobs = new Map<string, KnownJob>();
  /** All that go on or are being recorded, also several of one name. */
  readonly #runs = new Map<JobRun, JobRecord | undefined>();

  constructor(parts: JobsParts) {
    this.#parts = parts;
  }

  /** Goes on with the Jobs that an earlier process has begun. `takenOver`: the pods that this one has from it. */
  async recover(takenOver: readonly LivePod[]): Promise<void> {
    const { directory, log, pods } = this.#parts;
    if (directory === undefined) return;
    await openJobRecords(directory);
    for (const { record, progress, ...left } of await readJobs(directory, log)) {
      const { job, options } = left;
      const { outcome, active } = progress;
      const { namespace } = job.metadata;
      const find = (name: string) =>
        takenOver.find((live) => live.namespace === namespace && live.name === name) ??
        pods.outcomeOf({ namespace, name });
      if (outcome === undefined || active.length > 0) this.#begin(left, record, { before: { progress, find } });
      else if (options.isApplied) this.#remember({ job, outcome, record });
      else await record.remove();
    }
  }

  /** Runs a Job. */
  run(job: Job, { source, removeAtEnd = false, isApplied = false, ...client }: JobBeginning): JobRun {
    const { directory, log } = this.#parts;
    const record = directory === undefined ? undefined : new JobRecord(join(directory, `${randomUUID()}.json`), log);
    return this.#begin({ job, source, options: { removeAtEnd, isApplied }, hasLostSecrets: false }, record, client);
  }

  #begin(
    recorded: RecordedJob,
    record: JobRecord | undefined,
    { before, ...client }: Client & { readonly before?: BegunJob },
  ): JobRun {
    const { activity, clock } = this.#parts;
    const { job, options } = recorded;
    const active = activity.begin();
    /** Its pods of this process, and those that it took over. */
    const own = new Set(before?.progress.active.map(({ name }) => name));
    const start = (pod: Pod) => {
      own.add(pod.metadata.name);
      return this.#start(pod, recorded, client);
    };
    const save = async (progress: JobProgress) => {
      await record?.save(recorded, progress);
      // Not before: the next process counts a pod that has ended by its record.
      if (options.removeAtEnd) await this.#forget(job, own, progress);
    };
    const run = new JobRun(job, { clock, start, save, isAwaited: client.awaited === 'end' }, before);
    this.#runs.set(run, record);
    this.#remember({ job, run, record });
    void run.finished.then(async (outcome) => {
      await record?.saved; // a Job that is listed as over is on record as such
      const key = keyOf(job);
      const isNewest = this.#jobs.get(key)?.run === run;
      if (isNewest && options.isApplied) this.#jobs.set(key, { job, outcome, record });
      else {
        if (isNewest) this.#jobs.delete(key);
        await record?.remove();
      }
      this.#runs.delete(run);
      active[Symbol.dispose]();
    });
    return run;
  }

  #start(pod: Pod, { source, hasLostSecrets }: RecordedJob, { onStart, awaited }: Client): LivePod {
    if (hasLostSecrets) throw secretsEnded('start', pod.metadata.name);
    const options = { removeAtEnd: false, ...(awaited && { awaited }) };
    const live = onlyOf(this.#parts.pods.start([{ ...source, pod }], options));
    onStart?.(live);
    return live;
  }

  /** Removes what is kept of those of its pods that have ended and are counted. Never rejects. */
  async #forget({ metadata: { namespace } }: Job, own: ReadonlySet<string>, { active }: JobProgress): Promise<void> {
    const isActive = (name: string) => active.some((pod) => pod.name === name);
    await this.#parts.pods
      .forget((pod) => pod.namespace === namespace && own.has(pod.name) && !isActive(pod.name))
      .catch((error: unknown) => this.#parts.log.error('pods of a Job not removed', error));
  }

  #remember(known: KnownJob): void {
    const key = keyOf(known.job);
    this.#jobs.delete(key);
    this.#jobs.set(key, known);
    const [oldest] = this.#jobs;
    if (oldest === undefined || this.#jobs.size <= maxJobs) return;
    const [name, { run, record }] = oldest;
    this.#jobs.delete(name);
    if (run === undefined) void record?.remove();
  }

  /** Ends a Job with its pods, and forgets it. Returns whether it was known. */
  async remove(job: Job): Promise<boolean> {
    const key = keyOf(job);
    const known = this.#jobs.get(key);
    if (known === undefined) return false;
    this.#jobs.delete(key);
    known.run?.stop('terminate');
    await known.record?.remove();
    return true;
  }

  find(job: Job): KnownJob | undefined {
    return this.#jobs.get(keyOf(job));
  }

  /** Those that are remembered, the oldest first. */
  list(): readonly KnownJob[] {
    return [...this.#jobs.values()];
  }

  /** Ends all Jobs with their pods. */
  stop(): void {
    for (const run of this.#runs.keys()) run.stop('terminate');
  }

  /** Starts no more pods, and leaves those that run. */
  leave(): void {
    for (const run of this.#runs.keys()) run.leave();
  }

  /** Leaves them to the next process. Failures to record them were logged. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.leave();
    await Promise.all([...this.#runs.values()].map(async (record) => await record?.saved));
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
