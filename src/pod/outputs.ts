import { type GuestText, guestText } from '#base/guest-text.ts';
import type { Log } from '#host/log/log.ts';
import type { OutputChunk } from '#sandbox/sandbox.ts';

export type OutputListener = (container: string, chunk: OutputChunk) => Promise<void>;

/** Delivers the output of a pod's containers to listeners. A slow listener blocks the container. */
export interface Outputs {
  listen(listener: OutputListener): () => void;
  deliver(container: string, chunk: OutputChunk): Promise<void>;
  /** Ends all waits for listeners. Undelivered output is still in the log. */
  giveUp(): void;
}

export function createOutputs(log: Log): Outputs {
  /**
   * Callbacks by listener that release its waiters. A race with one long-lived promise would leak memory for every
   * chunk.
   */
  const listeners = new Map<OutputListener, Set<() => void>>();
  const leave = (listener: OutputListener) => {
    const waiting = listeners.get(listener);
    listeners.delete(listener);
    for (const release of waiting ?? []) release();
  };
  const take = (listener: OutputListener, waiting: Set<() => void>, container: string, chunk: OutputChunk) =>
    new Promise<void>((resolve) => {
      const release = () => {
        waiting.delete(release);
        resolve();
      };
      waiting.add(release);
      listener(container, chunk).then(release, (error: unknown) => {
        log.error('output listener dropped', error, { container });
        leave(listener); // a disconnected client must not block the container
      });
    });
  return {
    listen(listener) {
      listeners.set(listener, new Set());
      return () => leave(listener);
    },
    async deliver(container, chunk) {
      await Promise.all([...listeners].map(([listener, waiting]) => take(listener, waiting, container, chunk)));
    },
    giveUp: () => [...listeners.keys()].forEach(leave),
  };
}

const maxTailBytes = 2048;
const maxTailLines = 80;

/**
 * The last 2048 bytes or 80 lines of output, whichever is less: kubelet's FallbackToLogsOnError. A final newline
 * belongs to the last line.
 */
export interface OutputTail {
  add(bytes: Uint8Array): void;
  text(): GuestText;
}

export function createOutputTail(): OutputTail {
  let tail: Buffer = Buffer.alloc(0);
  return {
    add(bytes) {
      tail = Buffer.concat([tail, bytes.subarray(-maxTailBytes)]).subarray(-maxTailBytes);
    },
    text() {
      const lines = tail.toString('utf8').match(/[^\n]*\n|[^\n]+$/g) ?? [];
      return guestText(lines.slice(-maxTailLines).join(''));
    },
  };
}
