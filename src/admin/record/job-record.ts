import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { podOutcomeSchema } from '#api/pods.ts';
import { writeFileAtomic } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { configMapSchema } from '#pod/schema/objects.ts';
import { type Job, jobSchema } from '#pod/schema/workloads.ts';
import type { PodSource, StartOptions } from './ended-record.ts';

/** What the pods of a Job or CronJob are made of besides its template. */
export type WorkloadSource = Omit<PodSource, 'pod'>;

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const jobPodSchema = v.object({ name: v.string(), index: v.exactOptional(count) });
/** A pod of a Job. `index`: of an Indexed Job. */
export type JobPod = v.InferOutput<typeof jobPodSchema>;

const progressSchema = v.object({
  /** Pods that run, or are about to start. */
  active: v.array(jobPodSchema),
  /** Indexes that need another pod. */
  again: v.array(count),
  nextIndex: count,
  succeeded: count,
  failed: count,
  /** Date at which it began, in `ms` since 1970. */
  startedMs: v.number(),
  /** Date before which no pod starts, in `ms` since 1970. */
  notBeforeMs: v.number(),
  outcome: v.exactOptional(podOutcomeSchema),
});
/** How far a Job has come. */
export type JobProgress = Readonly<v.InferOutput<typeof progressSchema>>;

const recordSchema = v.object({
  version: v.literal(1),
  job: jobSchema,
  isApplied: v.boolean(),
  removeAtEnd: v.boolean(),
  configMaps: v.array(configMapSchema),
  network: v.picklist(['cni', 'none']),
  hasSecrets: v.boolean(),
  /** Logins of the user who began it were used, which are not recorded. */
  hasLogins: v.boolean(),
  progress: progressSchema,
});

/** A Job, as it was begun. */
export interface RecordedJob {
  readonly job: Job;
  readonly source: WorkloadSource;
  readonly options: Pick<StartOptions, 'removeAtEnd'> & { readonly isApplied: boolean };
  /** Its Secrets ended with an earlier process. */
  readonly hasLostSecrets: boolean;
}

/** A Job that an earlier process has begun. `source`: without the contents of Secrets, and without logins. */
export interface LeftJob extends RecordedJob {
  readonly record: JobRecord;
  readonly progress: JobProgress;
}

/** The file of a Job, with its progress, which outlives a power cut. Writes one text after the other, until it is removed. */
export class JobRecord {
  readonly #path: string;
  readonly #log: Log;
  #isRemoved = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  /** Settles when this is written, or when writing has failed, which is logged. */
  save({ job, source, options, hasLostSecrets }: RecordedJob, progress: JobProgress): Promise<void> {
    const { configMaps, network, secrets, logins = [], hasLostLogins = false } = source;
    const record = {
      version: 1,
      job,
      ...options,
      ...{ configMaps: [...configMaps], network, progress },
      hasSecrets: hasLostSecrets || secrets.length > 0,
      hasLogins: hasLostLogins || logins.length > 0,
    } satisfies v.InferInput<typeof recordSchema>;
    return this.#then('Job not recorded', async () => {
      if (!this.#isRemoved) await writeFileAtomic(this.#path, JSON.stringify(record));
    });
  }

  /** Removes the file. A failure is logged. */
  remove(): Promise<void> {
    this.#isRemoved = true;
    return this.#then('record of a Job not removed', () => rm(this.#path, { force: true }));
  }

  /** Settles when all is written. */
  get saved(): Promise<void> {
    return this.#writing;
  }

  #then(failing: string, act: () => Promise<void>): Promise<void> {
    this.#writing = this.#writing
      .then(act)
      .catch((error: unknown) => this.#log.error(failing, error, { path: this.#path }));
    return this.#writing;
  }
}

/** Makes the directory of records, and removes what writes that were cut short have left in it. */
export async function openJobRecords(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) if (!name.endsWith('.json')) await rm(join(directory, name));
}

/** Reads the Jobs that earlier processes have left, the oldest first. A damaged record is logged and left out. */
export async function readJobs(directory: string, log: Log): Promise<readonly LeftJob[]> {
  const names = await readdir(directory).catch(() => []); // none yet, or those of root
  const read = names
    .filter((name) => name.endsWith('.json'))
    .map(async (name): Promise<LeftJob | undefined> => {
      const path = join(directory, name);
      try {
        const parsed = v.parse(recordSchema, JSON.parse(await readFile(path, 'utf8')));
        const { job, isApplied, removeAtEnd, configMaps, network, hasSecrets, hasLogins, progress } = parsed;
        return {
          ...{ job, progress },
          source: { configMaps, secrets: [], hasLostLogins: hasLogins, network },
          options: { isApplied, removeAtEnd },
          record: new JobRecord(path, log),
          hasLostSecrets: hasSecrets,
        };
      } catch (error) {
        log.error('record of a Job not read', error, { path });
        return undefined;
      }
    });
  return (await Promise.all(read))
    .filter((job) => job !== undefined)
    .toSorted((a, b) => a.progress.startedMs - b.progress.startedMs);
}
