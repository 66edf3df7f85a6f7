import type { Readable } from 'node:stream';
import * as v from 'valibot';
import { channel, execStatusSchema } from '#api/exec.ts';
import { type Client, connectionClosed, connectionFailed, fromErrorBody } from './client.ts';
import { podPath } from './pod-name.ts';

export interface StreamedCommand {
  readonly pod: string;
  readonly container: string | undefined;
  readonly command: readonly string[];
  /** Its standard input; default: none. */
  readonly input?: Readable;
  /** Takes its standard output, at its own pace. */
  readonly output?: (bytes: Buffer) => Promise<void>;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** The most that is kept of what a command says on standard error, in bytes. */
const maxSaidBytes = 4096;

/** Runs a command in a container with streams of this process. Returns its exit code and the end of its standard error. */
export async function execStream(
  client: Client,
  { pod, container, command, input, output, signal }: StreamedCommand,
): Promise<{ readonly exitCode: number; readonly said: string }> {
  const query = new URLSearchParams({ tty: 'false', stdin: String(input !== undefined) });
  if (container !== undefined) query.set('container', container);
  for (const word of command) query.append('command', word);
  const socket = client.open(`${podPath(pod)}/exec?${query.toString()}`);
  let said = Buffer.alloc(0);
  using undo = new DisposableStack();
  try {
    return await new Promise((resolve, reject) => {
      let queue: Promise<void> = Promise.resolve();
      const abort = () => reject(signal.reason as Error); // SAFE: the error of the signal that ended the command
      signal.addEventListener('abort', abort);
      undo.defer(() => signal.removeEventListener('abort', abort));
      if (signal.aborted) abort();
      const take = async (frame: Buffer) => {
        const body = frame.subarray(1);
        if (frame[0] === channel.stdout) await output?.(body);
        else if (frame[0] === channel.stderr) said = Buffer.concat([said, body]).subarray(-maxSaidBytes);
        else if (frame[0] === channel.status) {
          const status = v.parse(execStatusSchema, JSON.parse(body.toString('utf8')));
          if ('error' in status) return reject(fromErrorBody(status.error));
          resolve({ exitCode: status.exitCode, said: said.toString('utf8') });
        }
      };
      socket.on('message', (data) => {
        const frame = Buffer.isBuffer(data) ? data : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)]);
        socket.pause();
        queue = queue
          .then(() => take(frame))
          .catch(reject)
          .finally(() => socket.resume());
      });
      socket.once('open', () => {
        if (input === undefined) return;
        const send = (bytes: Buffer) => new Promise<void>((sent) => socket.send(bytes, () => sent()));
        const pump = async () => {
          for await (const chunk of input as AsyncIterable<Buffer>) {
            await send(Buffer.concat([Buffer.from([channel.stdin]), chunk]));
          }
          await send(Buffer.from([channel.close, channel.stdin]));
        };
        pump().catch(reject);
      });
      socket.once('error', (cause) => reject(connectionFailed('run the command', cause)));
      socket.once('close', () => void queue.then(() => reject(connectionClosed('run the command'))));
    });
  } finally {
    socket.terminate();
  }
}
