import { messageOf } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { ToldEvent } from '#wire/messages.ts';
import { open } from '#engine/constants.ts';
import { ready, type Clock, type Descriptors, type Text } from '#engine/engine.ts';
import { readStart } from './read-start.ts';

type Parts = Pick<Descriptors, 'open' | 'close' | 'read' | 'watch' | 'unwatch' | 'openInotify' | 'watchFile'> &
  Pick<Clock, 'setTimer'> &
  Pick<Text, 'encodeBase64'>;

interface Watched {
  readonly containerId: string;
  readonly file: string;
}

/** Delay from the first write to the read, in `ms`: `echo >` empties, writes and closes the file. */
const settleMs = 20;
/** Pause after a read until writes are noticed again, in `ms`: an endless writer costs five reads a second. */
const restMs = 180;
/** Size of an inotify event of a file, without the name that events of a watched directory have (inotify(7)). */
const eventBytes = 16;
const bufferBytes = 4096;
/** The number of events that the kernel queues (fs.inotify.max_queued_events). */
const maxReads = (16_384 * eventBytes) / bufferBytes;

/**
 * Sends the host the termination logs of running containers, so that they are known if the machine dies. Costs nothing
 * while there are no writes.
 */
export class TerminationMessages {
  readonly #parts: Parts;
  readonly #tell: (event: ToldEvent) => void;
  /** Keyed by watch number. The kernel removes a watch with its file. */
  readonly #watched = new Map<number, Watched>();
  #fd: number | undefined;

  constructor(parts: Parts, tell: (event: ToldEvent) => void) {
    this.#parts = parts;
    this.#tell = tell;
  }

  /** Logs a failure and nothing more: without a watch, the message is still read when the container has ended. */
  watch(containerId: string, file: string): void {
    try {
      if (this.#fd === undefined) this.#await((this.#fd = this.#parts.openInotify()));
      this.#watched.set(this.#parts.watchFile(this.#fd, file), { containerId, file });
    } catch (error) {
      const text = `cannot watch the termination log of ${containerId}: ${messageOf(error)}`;
      this.#tell({ kind: 'log', level: 'warn', text });
    }
  }

  forget(containerId: string): void {
    for (const [number, watched] of this.#watched)
      if (watched.containerId === containerId) this.#watched.delete(number);
  }

  #await(fd: number): void {
    this.#parts.watch(fd, ready.readable, () => {
      this.#parts.unwatch(fd);
      this.#parts.setTimer(settleMs, () => {
        this.#parts.setTimer(restMs, () => this.#await(fd)); // first, so that an error below does not stop the watching
        for (const { containerId, file } of this.#changed(fd)) {
          const { data } = readTerminationLog(this.#parts, file, limits.maxTerminationBytes);
          this.#tell({ kind: 'terminationMessage', containerId, data });
        }
      });
    });
  }

  /** Takes all events. When there are too many, or the kernel has dropped some, any file may have changed. */
  #changed(fd: number): Watched[] {
    const buffer = new Uint8Array(bufferBytes);
    const numbers = new Set<number>();
    const view = new DataView(buffer.buffer);
    const bytes = this.#parts.read(fd, buffer);
    for (let at = 0; at + eventBytes <= bytes; at += eventBytes) numbers.add(view.getInt32(at, true));
    for (let reads = 1, last = bytes; last === bufferBytes && reads < maxReads; reads += 1)
      last = this.#parts.read(fd, buffer);
    const isAny = bytes === bufferBytes || numbers.has(overflow);
    return [...this.#watched].flatMap(([number, watched]) => (isAny || numbers.has(number) ? [watched] : []));
  }
}

/** The number in an IN_Q_OVERFLOW event, instead of a watch's. */
const overflow = -1;

/** The container controls the log, so it is opened without following links or blocking. */
export function readTerminationLog(
  parts: Pick<Parts, 'open' | 'read' | 'close' | 'encodeBase64'>,
  file: string,
  maxBytes: number,
): { data: string; truncated: boolean } {
  return readStart(parts, parts.open(file, open.readOnly | open.nonBlock | open.noFollow), maxBytes);
}
