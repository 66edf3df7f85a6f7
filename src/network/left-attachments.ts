import type { Log } from '#host/log/log.ts';
import { messageOf } from '#base/errors.ts';
import type { AttachmentRecord, AttachmentRecords } from './attachment-record.ts';

export interface LeftParts {
  readonly records: Pick<AttachmentRecords, 'read'>;
  /** The attachment of a record, to be disposed of. */
  readonly open: (record: AttachmentRecord) => AsyncDisposable;
  /** Frees what attachments without a readable record held; called after a later try has removed some. */
  readonly free: () => Promise<void>;
  /** Time between two tries, in `ms`. */
  readonly againMs: number;
  readonly log: Log;
}

/**
 * Removes the attachments of earlier processes, and those that could not be prepared. Tries again those whose plugins fail:
 * after a reboot of the host, they do while their agents are not there yet.
 */
export class LeftAttachments {
  readonly #parts: LeftParts;
  /** Ids of sandboxes whose attachments could not be removed. */
  readonly #left = new Set<string>();
  #triedMs = -Infinity;
  #trying: Promise<unknown> | undefined;

  constructor(parts: LeftParts) {
    this.#parts = parts;
  }

  /** Leaves an attachment that is on record to later tries. `why`: what failed. */
  keep(sandboxId: string, why: unknown): void {
    this.#left.add(sandboxId);
    this.#parts.log.error('network.prepare', why, { sandbox: sandboxId });
  }

  /** Returns the ids of those that it removed; failures are logged. Errors: the reason of `signal`. */
  async collect(sandboxIds: readonly string[], signal: AbortSignal): Promise<readonly string[]> {
    this.#triedMs = performance.now();
    const collected: string[] = [];
    for (const sandboxId of sandboxIds) {
      signal.throwIfAborted();
      if (await this.#remove(sandboxId)) collected.push(sandboxId);
    }
    return collected;
  }

  /** Begins another try if one is due. `signal` ends it after the present attachment. */
  tryAgain(signal: AbortSignal): void {
    if (this.#left.size === 0 || this.#trying !== undefined) return;
    if (performance.now() - this.#triedMs < this.#parts.againMs) return;
    this.#trying = this.#tryAgain(signal)
      .catch(() => undefined)
      .finally(() => (this.#trying = undefined));
  }

  async #tryAgain(signal: AbortSignal): Promise<void> {
    const collected = await this.collect([...this.#left], signal);
    if (collected.length > 0) await this.#parts.free();
  }

  async #remove(sandboxId: string): Promise<boolean> {
    const { records, open, log } = this.#parts;
    const isAgain = this.#left.has(sandboxId);
    try {
      const record = (await records.read(sandboxId)) ?? unreadable(sandboxId);
      await open(record)[Symbol.asyncDispose]();
      this.#left.delete(sandboxId);
      if (isAgain) log.info('swept an attachment', { sandbox: sandboxId });
      return true;
    } catch (error) {
      this.#left.add(sandboxId);
      if (isAgain) log.debug('attachment not removed', { sandbox: sandboxId, why: messageOf(error) });
      else log.error('network.collect', error, { sandbox: sandboxId });
      return false;
    }
  }
}

/** The minimum of a record with which the netns of a torn record is removed. */
function unreadable(sandboxId: string): AttachmentRecord {
  const pod = { podName: '', podNamespace: '', podUid: '' };
  return { version: 1, sandboxId, ...pod, mode: 'none', hostPorts: [], tapOwnerUid: 0, mac: '' };
}
