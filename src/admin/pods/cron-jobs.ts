import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import type { ObjectSummary } from '#api/objects.ts';
import { PodvmError } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { isJobOf, jobLabel, jobOf } from '#pod/manifest/workloads.ts';
import { lastDue, nextDue } from '#pod/schedule.ts';
import { configMapSchema } from '#pod/schema/objects.ts';
import { type CronJob, cronJobSchema, type Job } from '#pod/schema/workloads.ts';
import type { Activity } from '../activity.ts';
import type { WorkloadSource } from '../record/job-record.ts';
import { plain } from '../record/same-pod.ts';
import type { JobRun } from './job-run.ts';
import { hasPods, type Jobs } from './jobs.ts';
import type { LivePod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';

export interface CronJobsParts {
  /** File that keeps the CronJobs for the next node. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly activity: Activity;
  readonly jobs: Jobs;
  readonly pods: NodePods;
  /** False in a process that ends with its command: it leaves them to the next node. */
  readonly begins: boolean;
}

interface Known {
  cronJob: CronJob;
  source: WorkloadSource;
  /** It uses Secrets, which ended with an earlier node. */
  hasLostSecrets: boolean;
  /** The newest time that it was due and that was dealt with; at first when it was applied. */
  handledMs: number;
  /** Its Jobs that go on, by their names. */
  readonly runs: Map<string, JobRun>;
  cancel: () => void;
  /** Whether `stop` was called since it was applied. */
  isStopped: boolean;
  /** Keeps the node from its idle end. */
  active: Disposable;
}

type Change = 'created' | 'configured' | 'unchanged';

const recordSchema = v.object({
  version: v.literal(1),
  cronJobs: v.array(
    v.object({
      cronJob: cronJobSchema,
      configMaps: v.array(configMapSchema),
      network: v.picklist(['cni', 'none']),
      hasSecrets: v.boolean(),
      /** Logins of the user who applied it were used, which are not recorded. */
      hasLogins: v.exactOptional(v.boolean()),
      handledMs: v.number(),
    }),
  ),
});

const maxCronJobs = 200;
/** Interval at which a schedule is looked at again, since the host's date may be set meanwhile, in `ms`. */
const lookMs = 60_000;

/**
 * The CronJobs of this node: begins a Job whenever one is due, also after the end of a node in between, and keeps as many of
 * their ended pods as they want.
 */
export class CronJobs implements AsyncDisposable {
  readonly #parts: CronJobsParts;
  readonly #known = new Map<string, Known>();
  #saving: Promise<void> = Promise.resolve();
  #isOver: boolean;

  private constructor(parts: CronJobsParts) {
    this.#parts = parts;
    this.#isOver = !parts.begins;
  }

  /** Reads those that an earlier node has kept. */
  static async open(parts: CronJobsParts): Promise<CronJobs> {
    const cronJobs = new CronJobs(parts);
    const text = await readFileIfThere(parts.path);
    if (text === undefined) return cronJobs;
    try {
      for (const { cronJob, hasSecrets, hasLogins = false, handledMs, ...source } of v.parse(
        recordSchema,
        JSON.parse(text),
      ).cronJobs) {
        const known = { handledMs, hasLostSecrets: hasSecrets };
        cronJobs.#add(cronJob, { ...source, secrets: [], hasLostLogins: hasLogins }, known);
      }
    } catch (error) {
      parts.log.error('CronJobs not read: apply their files again', error);
    }
    return cronJobs;
  }

  find(cronJob: CronJob): CronJob | undefined {
    return this.#known.get(keyOf(cronJob))?.cronJob;
  }

  /** Summaries for `podvm get`. */
  list(): readonly ObjectSummary[] {
    return [...this.#known.values()].map((known) => {
      const { metadata, spec } = known.cronJob;
      return {
        ...{ kind: 'CronJob' as const, namespace: metadata.namespace, name: metadata.name, labels: metadata.labels },
        status: `${spec.schedule}, ${this.#stateOf(known)}`,
        pods: this.#livePodsOf(known).map(({ name }) => name),
      };
    });
  }

  #stateOf(known: Known): string {
    const { spec } = known.cronJob;
    if (spec.suspend) return 'suspended';
    if (known.isStopped || this.#isOver) return 'stopped: apply it again';
    if (known.hasLostSecrets) return 'without its Secrets: apply it again';
    if (this.#isActive(known)) return 'running';
    return `next ${new Date(nextDue(spec, this.#now)).toISOString().slice(0, 16)}Z`;
  }

  /** Makes or changes one. A change holds from the next time that it is due. Errors: `exhausted`, and those of the file. */
  async apply(cronJob: CronJob, source: WorkloadSource): Promise<Change> {
    const known = this.#known.get(keyOf(cronJob));
    if (known === undefined && this.#known.size >= maxCronJobs) {
      throw new PodvmError('exhausted', `Cannot make CronJob ${keyOf(cronJob)}: the node has ${maxCronJobs}`, {
        fix: 'Remove some with `podvm delete -f`.',
      });
    }
    const isSame = known !== undefined && isDeepStrictEqual(plain(known.cronJob.spec), plain(cronJob.spec));
    if (known === undefined) this.#add(cronJob, source, { handledMs: this.#now, hasLostSecrets: false });
    else {
      const { schedule, timeZone } = known.cronJob.spec;
      // What a new schedule would have made due before is not made up for.
      if (schedule !== cronJob.spec.schedule || timeZone !== cronJob.spec.timeZone) known.handledMs = this.#now;
      if (known.isStopped) {
        known.isStopped = false;
        known.handledMs = this.#now;
        known.active = this.#parts.activity.begin();
      }
      known.cronJob = cronJob;
      known.source = source;
      known.hasLostSecrets = false;
      this.#look(known);
    }
    await this.#save();
    return known === undefined ? 'created' : isSame ? 'unchanged' : 'configured';
  }

  /** Removes one, and ends its Jobs. Returns whether it was known. Errors: those of the file. */
  async remove(cronJob: CronJob): Promise<boolean> {
    const known = this.#known.get(keyOf(cronJob));
    if (known === undefined) return false;
    this.#known.delete(keyOf(cronJob));
    known.cancel();
    for (const run of known.runs.values()) run.stop('terminate');
    known.active[Symbol.dispose]();
    await this.#save();
    return true;
  }

  /** Begins no more Jobs of a CronJob until it is applied again; the next node goes on with all. */
  stop(): void {
    for (const known of this.#known.values()) {
      known.isStopped = true;
      known.cancel();
      known.active[Symbol.dispose]();
    }
  }

  /** Begins no more Jobs in this process. */
  leave(): void {
    this.#isOver = true;
    this.stop();
  }

  /** Leaves them to the next node. Failures to record them were logged. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.leave();
    await this.#saving.catch(() => undefined);
  }

  get #now(): number {
    return this.#parts.clock.now();
  }

  #add(
    cronJob: CronJob,
    source: WorkloadSource,
    { handledMs, hasLostSecrets }: Pick<Known, 'handledMs' | 'hasLostSecrets'>,
  ): void {
    const active = this.#parts.activity.begin();
    const known = {
      ...{ cronJob, source, handledMs, hasLostSecrets, runs: new Map<string, JobRun>() },
      ...{ cancel: () => {}, isStopped: false, active },
    };
    this.#known.set(keyOf(cronJob), known);
    for (const { job, run } of this.#parts.jobs.list()) {
      const { namespace, name } = job.metadata;
      const isOwn = namespace === cronJob.metadata.namespace && isJobOf(cronJob, name);
      if (isOwn && run !== undefined) this.#follow(known, name, run); // an earlier node has begun it
    }
    this.#look(known);
  }

  /** Begins a Job if one is due, and plans the next look. */
  #look(known: Known): void {
    known.cancel();
    if (this.#isOver || known.isStopped || this.#known.get(keyOf(known.cronJob)) !== known) return;
    const { clock, log } = this.#parts;
    const { spec } = known.cronJob;
    const dueMs = lastDue(spec, known.handledMs, this.#now);
    if (dueMs !== undefined && !spec.suspend) {
      try {
        this.#due(known, dueMs);
      } catch (error) {
        log.error('Job of a CronJob not begun', error, { cronJob: keyOf(known.cronJob) });
      }
    }
    const waitMs = nextDue(spec, this.#now) - this.#now;
    known.cancel = clock.after(Math.min(waitMs, lookMs), () => this.#look(known));
  }

  #due(known: Known, dueMs: number): void {
    const { spec } = known.cronJob;
    const deadlineMs = (spec.startingDeadlineSeconds ?? Infinity) * 1000;
    if (this.#now - dueMs > deadlineMs) return this.#handled(known, dueMs);
    const job = jobOf(known.cronJob, dueMs);
    const { jobs, pods } = this.#parts;
    const isBegun = jobs.find(job) !== undefined || hasPods(job, pods);
    if (isBegun) return this.#handled(known, dueMs); // by a node that was killed before it said so
    if (spec.concurrencyPolicy === 'Forbid' && this.#isActive(known)) return; // looks again when that one has ended
    if (spec.concurrencyPolicy === 'Replace') {
      for (const run of known.runs.values()) run.stop('terminate');
      for (const { pod } of this.#livePodsOf(known)) void pod.terminate(); // also those that an earlier node has begun
    }
    this.#handled(known, dueMs);
    if (known.hasLostSecrets) {
      const why = 'its Secrets ended with an earlier node: apply its files again';
      return this.#parts.log.warn(`Job of a CronJob not begun: ${why}`, { cronJob: keyOf(known.cronJob) });
    }
    this.#begin(known, job);
  }

  /** Whether a Job of it runs, also one that an earlier node has begun. */
  #isActive(known: Known): boolean {
    return known.runs.size > 0 || this.#livePodsOf(known).length > 0;
  }

  #livePodsOf({ cronJob }: Known): readonly LivePod[] {
    const { namespace } = cronJob.metadata;
    const isOf = (labels: Readonly<Record<string, string>>) => isJobOf(cronJob, labels[jobLabel] ?? '');
    return this.#parts.pods.live().filter(({ pod }) => pod.namespace === namespace && isOf(pod.pod.metadata.labels));
  }

  #handled(known: Known, dueMs: number): void {
    known.handledMs = dueMs;
    this.#save().catch((error: unknown) => this.#parts.log.error('CronJobs not recorded', error));
  }

  #begin(known: Known, job: Job): void {
    this.#follow(known, job.metadata.name, this.#parts.jobs.run(job, { source: known.source }));
  }

  #follow(known: Known, name: string, run: JobRun): void {
    known.runs.set(name, run);
    void run.finished.then(async () => {
      known.runs.delete(name);
      if (this.#isOver || known.isStopped) return;
      await this.#removeOldest(known).catch((error: unknown) =>
        this.#parts.log.error('pods of a CronJob not removed', error),
      );
      this.#look(known);
    });
  }

  /** Removes the ended pods of its oldest Jobs, beyond the limits of its history. */
  async #removeOldest({ cronJob, runs }: Known): Promise<void> {
    const { pods } = this.#parts;
    const { namespace } = cronJob.metadata;
    const { successfulJobsHistoryLimit, failedJobsHistoryLimit } = cronJob.spec;
    const jobNameOf = ({ labels }: { readonly labels: Readonly<Record<string, string>> }) => labels[jobLabel] ?? '';
    // A Job that waits for its next try has no pod.
    const running = new Set([...runs.keys(), ...pods.live().map(({ pod }) => jobNameOf(pod.pod.metadata))]);
    const outcomes = new Map<string, boolean>();
    for (const pod of pods.ended()) {
      const name = jobNameOf(pod.details);
      if (pod.namespace !== namespace || !isJobOf(cronJob, name) || running.has(name)) continue;
      outcomes.set(name, (outcomes.get(name) ?? false) || pod.outcome.exitCode === 0);
    }
    const newestFirst = [...outcomes.keys()].toSorted((a, b) => numberOf(b) - numberOf(a));
    const succeeded = newestFirst.filter((name) => outcomes.get(name) === true).slice(successfulJobsHistoryLimit);
    const failed = newestFirst.filter((name) => outcomes.get(name) === false).slice(failedJobsHistoryLimit);
    const old = new Set([...succeeded, ...failed]);
    await pods.forget((pod) => pod.namespace === namespace && old.has(jobNameOf(pod.details)));
  }

  /** Writes the file once the write before has ended. */
  #save(): Promise<void> {
    this.#saving = this.#saving
      .catch(() => undefined)
      .then(async () => {
        const cronJobs = [...this.#known.values()].map(({ cronJob, source, hasLostSecrets, handledMs }) => ({
          cronJob,
          configMaps: source.configMaps,
          network: source.network,
          hasSecrets: hasLostSecrets || source.secrets.length > 0,
          hasLogins: source.hasLostLogins === true || (source.logins ?? []).length > 0,
          handledMs,
        }));
        await writeFileAtomic(this.#parts.path, `${JSON.stringify({ version: 1, cronJobs })}\n`);
      });
    return this.#saving;
  }
}

const numberOf = (job: string): number => Number(job.slice(job.lastIndexOf('-') + 1));
const keyOf = ({ metadata: { namespace, name } }: CronJob): string => `${namespace}/${name}`;
