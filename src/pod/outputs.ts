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
  const listeners = new Set<OutputListener>();
  const givenUp = Promise.withResolvers<void>();
  return {
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async deliver(container, chunk) {
      if (listeners.size === 0) return;
      const all = Promise.all(
        [...listeners].map(async (listener) => {
          try {
            await listener(container, chunk);
          } catch (error) {
            listeners.delete(listener); // a client that went away must not hold the container
            log.warn('output listener dropped', { container, err: error instanceof Error ? error.message : 'thrown' });
          }
        }),
      );
      await Promise.race([all, givenUp.promise]);
    },
    giveUp: () => {
      listeners.clear();
      givenUp.resolve();
    },
  };
}

const maxTailBytes = 2048;
const maxTailLines = 80;

/** The last 2048 bytes or 80 lines of output, whatever is less: kubelet's FallbackToLogsOnError. */
export interface OutputTail {
  add(bytes: Uint8Array): void;
  text(): string;
}

export function createOutputTail(): OutputTail {
  let tail: Buffer = Buffer.alloc(0);
  return {
    add(bytes) {
      tail = Buffer.concat([tail, bytes.subarray(-maxTailBytes)]).subarray(-maxTailBytes);
    },
    text: () => tail.toString('utf8').split('\n').slice(-maxTailLines).join('\n'),
  };
}
