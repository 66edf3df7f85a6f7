import { randomUUID } from 'node:crypto';
import { link, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import type { PodDetails, PodOutcome, PodSummary } from '#api/pods.ts';
import { replaceFile } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { rotatedNumbers } from '#sandbox/log/log-writer.ts';
import {
  type EndedRecord,
  endedRecordSchema,
  parseSource,
  type PodSource,
  type StartOptions,
  type StoredSource,
  storedSource,
} from './ended-record.ts';
import { type LiveRecord, LiveRecordWriter, readLiveRecord } from './live-record.ts';
import { SecretsInMemory } from './secrets-in-memory.ts';

/** Limits on the pods that are kept after their end. The oldest are removed first. */
export interface EndedLimits {
  readonly pods: number;
  readonly bytes: number;
}

export interface EndedPodsOptions {
  /** Made with the first pod. */
  readonly directory: string;
  readonly limits: EndedLimits;
  readonly log: Log;
}

/** A pod that has ended and was not removed. */
export interface EndedPod {
  /** Name of its directory. */
  readonly id: string;
  readonly namespace: string;
  readonly name: string;
  readonly details: PodDetails;
  readonly outcome: PodOutcome;
  readonly logs: EndedRecord['logs'];
  readonly bytes: number;
  /** As in its record. */
  readonly failures?: number;
}

/** A pod of an earlier process without a recorded end: it may still run, and the next process may take it over. */
export interface UnfinishedPod {
  readonly id: string;
  readonly namespace: string;
  readonly name: string;
  readonly live: LiveRecord;
}

/** A log that a container has left. */
export interface LeftLog {
  readonly container: string;
  readonly attempt: number;
  readonly path: string;
}

/** Outcome of a pod that no process could take over. The exit code is that of SIGKILL, since its machine has ended. */
const lost: PodOutcome = { exitCode: 137, reason: 'Lost', message: 'its machine ended while no podvm served it' };

export const isLost = ({ reason }: PodOutcome): boolean => reason === lost.reason;

/**
 * Pods of `podvm run` after their end, kept for later processes: the details for `inspect`, exit code, logs, and the
 * source for running them again. Each has a directory with `pod.json`, `source.json` and
 * `logs/<container>/<attempt>.log`.
 */
export class EndedPods {
  readonly #options: EndedPodsOptions;
  /** Pods by id, in the order of their ends. */
  readonly #pods = new Map<string, EndedPod>();
  readonly #unfinished = new Map<string, UnfinishedPod>();
  readonly #secrets = new SecretsInMemory();

  private constructor(options: EndedPodsOptions) {
    this.#options = options;
  }

  /** Reads what earlier processes have kept. A damaged record is logged and left out. */
  static async open(options: EndedPodsOptions): Promise<EndedPods> {
    const ended = new EndedPods(options);
    const ids = await readdir(options.directory).catch(() => []);
    const read = await Promise.all(ids.map((id) => ended.#read(id)));
    const found = read.filter((pod) => pod !== undefined);
    found.sort((a, b) => (a.details.endedAt ?? '').localeCompare(b.details.endedAt ?? ''));
    for (const pod of found) ended.#pods.set(pod.id, pod);
    return ended;
  }

  list(): readonly EndedPod[] {
    return [...this.#pods.values()];
  }

  /** Pods that an earlier process left without a recorded end. */
  unfinished(): readonly UnfinishedPod[] {
    return [...this.#unfinished.values()];
  }

  /** Returns the source of a pod that this process takes over, without its Secrets and logins. Errors: `corrupt`. */
  async takeUp(pod: UnfinishedPod): Promise<StoredSource> {
    const source = await this.#storedSourceOf(pod);
    this.#unfinished.delete(pod.id);
    return source;
  }

  /** Records a pod that cannot be taken over as ended. */
  async lose({ id }: UnfinishedPod): Promise<void> {
    this.#unfinished.delete(id);
    const record = await this.#recordOf(id);
    const at = new Date().toISOString();
    await this.#write(id, { ...record, ended: { at, ...lost } });
    this.#pods.set(id, endedPodOf(id, record, at));
    await this.#removeOldest();
  }

  /** Returns a writer that records a running pod for the next process, once `begun` has settled. */
  writerOf(id: string, facts: Pick<LiveRecord, 'bootId'> & StartOptions, begun: Promise<unknown>): LiveRecordWriter {
    return new LiveRecordWriter(this.#pathOf(id), facts, begun, this.#options.log);
  }

  /** Records that a pod starts, so that it is not forgotten if podvm is killed. Returns the id of its directory. */
  async begin(details: PodDetails, source: PodSource, id: string = randomUUID()): Promise<string> {
    await mkdir(this.#pathOf(id), { recursive: true, mode: 0o700 });
    await this.changeSource(id, source);
    await this.#write(id, { version: 1, details, logs: [], bytes: 0 });
    return id;
  }

  /** Replaces the source of a pod that `begin` has recorded, unless that record is gone. */
  async changeSource(id: string, source: PodSource): Promise<void> {
    const { secrets, logins = [] } = source;
    if (secrets.length > 0 || logins.length > 0) this.#secrets.keep(id, { secrets, logins });
    else this.#secrets.drop(id); // those that it had before
    await replaceFile(this.#pathOf(id, 'source.json'), storedSource(source)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      this.#secrets.drop(id);
    });
  }

  /**
   * Keeps a pod that has ended, with its logs: the newest ones, if all of them exceed the limit. Links them, so that they
   * stay when their sandbox is removed. The pod is listed when `list` is called on the result.
   */
  async keep(
    id: string,
    details: PodDetails,
    { at, ...outcome }: PodOutcome & { readonly at: string },
    logs: readonly LeftLog[],
  ): Promise<{ readonly list: () => Promise<void> }> {
    const recordBytes = JSON.stringify(details).length + (await sizeOf(this.#pathOf(id, 'source.json')));
    const { kept, bytes } = await this.#keepLogs(id, logs, this.#options.limits.bytes - recordBytes);
    const { sandbox: _, ...rest } = details;
    const record: EndedRecord = {
      version: 1,
      details: rest,
      ended: { at, ...outcome },
      logs: kept,
      bytes: bytes + recordBytes,
    };
    await this.#write(id, record);
    return {
      list: async () => {
        this.#pods.set(id, endedPodOf(id, record, at));
        await this.#removeOldest();
      },
    };
  }

  /** Records for the next process that an ended pod is due to be started again; `undefined`: that it no longer is. */
  async setFailures({ id }: EndedPod, failures: number | undefined): Promise<void> {
    const { failures: before, ...record } = await this.#recordOf(id);
    if (before === failures) return;
    await this.#write(id, { ...record, ...(failures === undefined ? {} : { failures }) });
  }

  /** Forgets a pod that ended, or that `begin` has recorded. */
  async remove(id: string): Promise<void> {
    this.#pods.delete(id);
    this.#unfinished.delete(id);
    try {
      await rm(this.#pathOf(id), { recursive: true, force: true });
    } finally {
      this.#secrets.drop(id); // last, for a `changeSource` under way
    }
  }

  /**
   * Returns the source for running the pod again. Errors: `corrupt`; `failedPrecondition` for Secrets that are gone.
   */
  async sourceOf(pod: EndedPod): Promise<PodSource> {
    const { id, name } = pod;
    const { hasSecrets, ...source } = await this.#storedSourceOf(pod);
    const kept = this.#secrets.of(id);
    if (kept !== undefined) return { ...source, ...kept, hasLostLogins: false };
    if (hasSecrets) throw secretsEnded('start', name);
    return source;
  }

  /** The source without the contents of Secrets. Errors: `corrupt`. */
  async shownSource(pod: EndedPod): Promise<PodSource> {
    return await this.#storedSourceOf(pod);
  }

  async #storedSourceOf({ id, name }: Pick<EndedPod, 'id' | 'name'>): Promise<StoredSource> {
    try {
      return parseSource(await readFile(this.#pathOf(id, 'source.json'), 'utf8'));
    } catch (cause) {
      throw new PodvmError('corrupt', `Cannot read the record of pod ${name}`, {
        cause,
        fix: `Remove it with \`podvm rm ${name}\`, and run it from its file or image.`,
      });
    }
  }

  async rename(pod: EndedPod, name: string): Promise<EndedPod> {
    const source = await this.#storedSourceOf(pod);
    const { metadata } = source.pod;
    const renamed = { ...pod, name, details: { ...pod.details, name } };
    await replaceFile(
      this.#pathOf(pod.id, 'source.json'),
      JSON.stringify({ ...source, pod: { ...source.pod, metadata: { ...metadata, name } } }),
    );
    const { details, outcome, logs, bytes } = renamed;
    await this.#write(pod.id, {
      version: 1,
      details,
      ended: { at: details.endedAt ?? '', ...outcome },
      logs: [...logs],
      bytes,
    });
    this.#pods.set(pod.id, renamed);
    return renamed;
  }

  logPath({ id }: EndedPod, { container, attempt }: EndedRecord['logs'][number]): string {
    return this.#pathOf(id, 'logs', container, `${attempt}.log`);
  }

  async #read(id: string): Promise<EndedPod | undefined> {
    try {
      const record = await this.#recordOf(id);
      const live = record.ended === undefined ? await readLiveRecord(this.#pathOf(id), this.#options.log) : undefined;
      if (live !== undefined) {
        const { namespace, name } = record.details;
        this.#unfinished.set(id, { id, namespace, name, live });
        return undefined;
      }
      return endedPodOf(id, record, (await stat(this.#pathOf(id, 'pod.json'))).mtime.toISOString());
    } catch (error) {
      this.#options.log.error('record of an ended pod not read', error, { id });
      return undefined;
    }
  }

  /** Errors: valibot's and JSON's. */
  async #recordOf(id: string): Promise<EndedRecord> {
    return v.parse(endedRecordSchema, JSON.parse(await readFile(this.#pathOf(id, 'pod.json'), 'utf8')));
  }

  /** Links the newest files first, until `room` is used up. */
  async #keepLogs(id: string, logs: readonly LeftLog[], room: number) {
    const kept: EndedRecord['logs'] = [];
    let bytes = 0;
    for (const { container, attempt, path } of logs.toSorted((a, b) => b.attempt - a.attempt)) {
      const to = this.#pathOf(id, 'logs', container, `${attempt}.log`);
      const older = (await rotatedNumbers(path)).sort((a, b) => b - a).map((number) => `.${number}`);
      let isKept = false;
      for (const suffix of ['', ...older]) {
        const size = await sizeOf(`${path}${suffix}`);
        if (bytes + size > room) break;
        await mkdir(dirname(to), { recursive: true, mode: 0o700 });
        await link(`${path}${suffix}`, `${to}${suffix}`).then(
          () => (isKept = true),
          (error: NodeJS.ErrnoException) => {
            if (error.code !== 'ENOENT') this.#options.log.error('log not kept', error, { id, container });
          },
        );
        bytes += size;
      }
      if (isKept) kept.unshift({ container, attempt });
    }
    return { kept, bytes };
  }

  async #removeOldest(): Promise<void> {
    const { pods: maxPods, bytes: maxBytes } = this.#options.limits;
    const pods = this.list();
    let count = pods.length;
    let bytes = pods.reduce((sum, pod) => sum + pod.bytes, 0);
    for (const pod of pods) {
      if (count <= maxPods && bytes <= maxBytes) return;
      count -= 1;
      bytes -= pod.bytes;
      await this.remove(pod.id);
    }
  }

  async #write(id: string, record: EndedRecord): Promise<void> {
    await replaceFile(this.#pathOf(id, 'pod.json'), JSON.stringify(record));
  }

  #pathOf(...names: readonly string[]): string {
    return join(this.#options.directory, ...names);
  }
}

export const secretsEnded = (verb: string, name: string): PodvmError =>
  new PodvmError(
    'failedPrecondition',
    `Cannot ${verb} pod ${name}: its Secrets ended with the node that was given them`,
    { fix: 'Run it from its files. Secrets are never written to disk.' },
  );

function endedPodOf(id: string, { details, ended, ...record }: EndedRecord, writtenAt: string): EndedPod {
  const { logs, bytes, failures } = record;
  const { at, ...outcome } = ended ?? { at: writtenAt, ...lost };
  const { namespace, name } = details;
  const phase = outcome.exitCode === 0 ? 'Succeeded' : 'Failed';
  const reason = outcome.reason === 'Completed' ? {} : { reason: outcome.reason };
  return {
    id,
    namespace,
    name,
    details: { ...details, phase, ready: details.ready, endedAt: at, exitCode: outcome.exitCode, ...reason },
    outcome,
    logs,
    bytes,
    ...(failures === undefined ? {} : { failures }),
  };
}

export function endedSummaryOf({ details }: EndedPod): PodSummary {
  const { namespace, name, phase, ready, restarts, createdAt, reason, endedAt, exitCode, labels, images } = details;
  const optional = { reason, endedAt, exitCode, labels, images };
  return { namespace, name, phase, ready, restarts, createdAt, addresses: [], ...withoutUndefined(optional) };
}

const withoutUndefined = <T extends object>(values: T) =>
  // SAFE: only absent values are left out
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };

const sizeOf = async (path: string): Promise<number> =>
  await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
