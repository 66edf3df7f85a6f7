import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from './files.ts';
import type { Log } from '../log/log.ts';

export interface RecordFilesOptions<Read> {
  /** Created when the first record is saved. */
  readonly directory: string;
  /** Noun for the log, such as `a pod`. */
  readonly what: string;
  /** Throws for an invalid record. */
  readonly parse: (text: string) => Read;
  readonly log: Log;
}

/** Records for the next process, one JSON file for each id. Writes for the same id are done one after the other. */
export class RecordFiles<Saved, Read = Saved> {
  readonly #options: RecordFilesOptions<Read>;
  readonly #last = new Map<string, Promise<void>>();

  constructor(options: RecordFilesOptions<Read>) {
    this.#options = options;
  }

  /**
   * Settles when the record is written or writing has failed, which is logged. The next process then finds an older
   * record.
   */
  save(id: string, record: Saved): Promise<void> {
    const text = `${JSON.stringify(record)}\n`;
    return this.#inTurn(id, async () => {
      await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
      await replaceFile(this.#path(id), text);
    });
  }

  remove(id: string): Promise<void> {
    return this.#inTurn(id, () => rm(this.#path(id), { force: true }));
  }

  /** Returns the records by id. An invalid one is logged and left out. */
  async load(): Promise<ReadonlyMap<string, Read>> {
    const { directory, what, parse, log } = this.#options;
    const records = new Map<string, Read>();
    for (const file of await readdir(directory).catch(() => [])) {
      if (!file.endsWith('.json')) continue;
      const id = file.slice(0, -'.json'.length);
      try {
        records.set(id, parse(await readFile(this.#path(id), 'utf8')));
      } catch (error) {
        log.error(`record of ${what} not read`, error, { id });
      }
    }
    return records;
  }

  #inTurn(id: string, act: () => Promise<void>): Promise<void> {
    const { what, log } = this.#options;
    const mine: Promise<void> = (this.#last.get(id) ?? Promise.resolve())
      .then(act)
      .catch((error: unknown) => log.error(`record of ${what} not written`, error, { id }))
      .finally(() => {
        if (this.#last.get(id) === mine) this.#last.delete(id);
      });
    this.#last.set(id, mine);
    return mine;
  }

  #path(id: string): string {
    return join(this.#options.directory, `${id}.json`);
  }
}
