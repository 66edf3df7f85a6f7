import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { maxBytesPerMs, type MachineConsole } from './console-log.ts';

/** Bytes that are kept: some 200 lines. */
export const maxRingBytes = 16 * 1024;

/** Keeps the end of a machine's serial console in memory, and nothing on the disk. */
export class ConsoleRing implements MachineConsole {
  readonly #source: Duplex;
  readonly #done: Promise<void>;
  #kept: Buffer = Buffer.alloc(0);

  constructor(source: Duplex) {
    this.#source = source;
    this.#done = this.#read();
  }

  tail(bytes: number): Promise<Buffer> {
    return Promise.resolve(this.#kept.subarray(Math.max(0, this.#kept.length - bytes)));
  }

  finished(): Promise<void> {
    return this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#source.destroy();
    await this.#done;
  }

  async #read(): Promise<void> {
    try {
      for await (const chunk of this.#source) {
        const bytes = chunk as Buffer; // SAFE: no encoding was set
        // A copy, without the pool that the chunk is a part of.
        this.#kept = Buffer.from(Buffer.concat([this.#kept, bytes]).subarray(-maxRingBytes));
        const waitMs = Math.floor(bytes.length / maxBytesPerMs);
        if (waitMs > 0) await delay(waitMs);
      }
    } catch {
      // Disposed, or QEMU is gone. The console is a debugging aid and never fails a machine.
    }
  }
}
