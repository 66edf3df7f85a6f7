import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { readFileIfThere, replaceFile } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { podMemorySchema } from '#pod/pod-memory.ts';
import type { RecordedPod } from '#pod/pods.ts';
import type { StartOptions } from './ended-record.ts';

const schema = v.object({
  version: v.literal(1),
  /** Boot of the host during which it runs, by the kernel's id. */
  bootId: v.string(),
  removeAtEnd: v.boolean(),
  isApplied: v.exactOptional(v.boolean()),
  terminalSize: v.exactOptional(v.object({ columns: v.number(), rows: v.number() })),
  memory: podMemorySchema,
});
/** `live.json` in the directory of a pod while it runs: the state from which the next process takes it over. */
export type LiveRecord = Readonly<v.InferOutput<typeof schema>>;

const fileName = 'live.json';

/** The kernel's id of the present boot of the host (random(4)). */
export const readBootId = async (): Promise<string> =>
  (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();

/** Returns undefined when there is none, or a damaged one, which is logged. */
export async function readLiveRecord(directory: string, log: Log): Promise<LiveRecord | undefined> {
  const text = await readFileIfThere(join(directory, fileName));
  if (text === undefined) return undefined;
  try {
    return v.parse(schema, JSON.parse(text));
  } catch (error) {
    log.error('record of a running pod not read', error, { directory });
    return undefined;
  }
}

/** Writes the newest state of one pod, one file after the other. */
export class LiveRecordWriter {
  readonly #directory: string;
  #facts: Pick<LiveRecord, 'bootId'> & StartOptions;
  readonly #log: Log;
  #written = '';
  #next: RecordedPod | undefined;
  #newest: RecordedPod | undefined;
  #writing: Promise<void>;

  /** `begun`: settles when the directory exists. */
  constructor(directory: string, facts: Pick<LiveRecord, 'bootId'> & StartOptions, begun: Promise<unknown>, log: Log) {
    this.#directory = directory;
    this.#facts = facts;
    this.#log = log;
    this.#writing = begun.then(
      () => {},
      () => {}, // reported by its caller; the writes below fail for the same reason
    );
  }

  /** Settles when all is written. */
  get saved(): Promise<void> {
    return this.#writing;
  }

  /** Settles when this state or a newer one is written, or when writing has failed, which is logged. */
  save(memory: RecordedPod): Promise<void> {
    const isQueued = this.#next !== undefined;
    this.#next = this.#newest = memory;
    if (!isQueued) this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Records that `podvm apply` has found the pod as the files describe it. Settles as `save` does. */
  async apply(): Promise<void> {
    this.#facts = { ...this.#facts, isApplied: true };
    if (this.#newest !== undefined) await this.save(this.#newest);
  }

  async #write(): Promise<void> {
    const memory = this.#next;
    this.#next = undefined;
    if (memory === undefined) return;
    const { bootId, removeAtEnd, isApplied, terminalSize } = this.#facts;
    const record = {
      version: 1,
      ...{ bootId, removeAtEnd },
      ...(isApplied === true ? { isApplied } : {}),
      ...(terminalSize === undefined ? {} : { terminalSize: { ...terminalSize } }),
      memory,
    };
    const text = JSON.stringify(record);
    if (text === this.#written) return; // unchanged, as after most probes
    try {
      await replaceFile(join(this.#directory, fileName), text);
      this.#written = text;
    } catch (error) {
      this.#log.error('pod not recorded', error, { directory: this.#directory });
    }
  }
}
