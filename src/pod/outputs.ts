import { type GuestText, guestText } from '#base/guest-text.ts';
import type { Log } from '#host/log.ts';
import type { OutputChunk } from '#sandbox/sandbox.ts';

export type OutputListener = (container: string, chunk: OutputChunk) => Promise<void>;

/** Hands the output of a pod's containers to whoever listens; a slow listener holds the container back. */
export interface Outputs {
  listen(listener: OutputListener): () => void;
  deliver(container: string, chunk: OutputChunk): Promise<void>;
  /** Ends all waiting for listeners: what they have not taken by now is lost to them, not to the log. */
  giveUp(): void;
}

export function createOutputs(log: Log): Outputs {
  /**
   * By listener, what releases those who wait for it. Not a race with one long-lived promise: that would keep
   * something of every chunk.
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
        leave(listener); // a client that went away must not hold the container
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
 * The last 2048 bytes or 80 lines of output, whatever is less: kubelet's FallbackToLogsOnError. A line has the newline at
 * its end, after which no other line begins.
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
