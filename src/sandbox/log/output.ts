import type { Readable } from 'node:stream';
import type { LinkStream } from '#link/link.ts';
import type { LogWriter } from './log-writer.ts';
import type { OutputChunk } from '../sandbox.ts';

/**
 * Carries one container's output from the link to its log and its followers. The next piece of a stream is only taken when
 * log and followers have finished with this one: a slow follower or disk withholds the link's credit, which stops the
 * agent, and so the container's own write. Memory is bounded by what the link may have in transit.
 */
export interface Output {
  follow(onChunk: (chunk: OutputChunk) => Promise<void>): { readonly ended: Promise<void>; stop(): void };
  /** Settles when the last byte has reached the log and the followers; never rejects. */
  readonly ended: Promise<void>;
}

/** Stream of output. Its `acknowledge`, if any, is called with bytes that have reached the log and the followers. */
export type OutputSource = Readable & Partial<Pick<LinkStream, 'acknowledge'>>;

export interface OutputStreams {
  readonly stdout: OutputSource;
  readonly stderr?: OutputSource;
}

interface Follower {
  /** Resolves when the follower has finished with the chunk or has stopped. */
  deliver(chunk: OutputChunk): Promise<void>;
  end(): void;
}

/**
 * `onProblem` is called once each time that the log becomes unwritable: output still goes to the followers, is missing in
 * the log meanwhile, and is logged again as soon as that works.
 */
export function pumpOutput(streams: OutputStreams, log: LogWriter, onProblem: (error: unknown) => void): Output {
  const followers = new Set<Follower>();
  let isLogBroken = false;
  let hasEnded = false;

  const write = async (chunk: OutputChunk) => {
    try {
      await log.write(chunk);
      isLogBroken = false;
    } catch (error) {
      if (!isLogBroken) onProblem(error);
      isLogBroken = true;
    }
  };
  const pump = async (stream: OutputChunk['stream'], source: OutputSource) => {
    try {
      for await (const bytes of source) {
        const chunk: OutputChunk = { stream, bytes: bytes as Uint8Array }; // SAFE: the link's streams carry bytes
        await Promise.all([write(chunk), ...[...followers].map((follower) => follower.deliver(chunk))]);
        source.acknowledge?.(chunk.bytes.length);
      }
    } catch {
      // The link is lost or the container was removed: the output ends here, and the sandbox reports why.
    }
  };
  const all = [pump('stdout', streams.stdout)];
  if (streams.stderr !== undefined) all.push(pump('stderr', streams.stderr));
  const ended = Promise.all(all).then(() => {
    hasEnded = true;
    for (const follower of followers) follower.end();
  });
  return {
    ended,
    follow(onChunk) {
      const { promise, resolve } = Promise.withResolvers<void>();
      let last: Promise<unknown> = Promise.resolve();
      const follower: Follower = {
        async deliver(chunk) {
          last = Promise.race([promise, last.then(() => onChunk(chunk))]);
          await last.catch(stop); // a failed follower has stopped, and no longer delays the output
        },
        end: resolve,
      };
      const stop = () => {
        followers.delete(follower);
        resolve();
      };
      if (hasEnded) resolve();
      else followers.add(follower);
      return { ended: promise, stop };
    },
  };
}
