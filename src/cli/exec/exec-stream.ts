import type { Readable } from 'node:stream';
import type { WebSocket } from 'ws';
import { channel } from '#api/exec.ts';
import { type Client, fromErrorBody } from '../client.ts';
import { type ExecSpec, followExec, openExec } from './exec-session.ts';

export interface StreamedCommand extends Pick<ExecSpec, 'pod' | 'container' | 'command'> {
  /** Its standard input; default: none. */
  readonly input?: Readable;
  /** Takes its standard output, at its own pace. */
  readonly output?: (bytes: Buffer) => Promise<void>;
  /** Ends the command. */
  readonly signal: AbortSignal;
}

/** Limit of a command's standard error that is kept, in bytes. */
const maxSaidBytes = 4096;

/** Runs a command in a container with streams of this process. Returns its exit code and the end of its standard error. */
export async function execStream(
  client: Client,
  { input, output, signal, ...command }: StreamedCommand,
): Promise<{ readonly exitCode: number; readonly said: string }> {
  const socket = openExec(client, { ...command, tty: false, stdin: input !== undefined });
  let said = Buffer.alloc(0);
  const { promise: broken, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error); // SAFE: the error of the signal that ended the command
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  if (input !== undefined) socket.once('open', () => void pump(input, socket).catch(reject));
  try {
    const followed = followExec(socket, {
      stdout: async (bytes) => await output?.(bytes),
      stderr: async (bytes) => void (said = Buffer.concat([said, bytes]).subarray(-maxSaidBytes)),
    });
    const status = await Promise.race([followed, broken]);
    if ('error' in status) throw fromErrorBody(status.error);
    return { exitCode: status.exitCode, said: said.toString('utf8') };
  } finally {
    signal.removeEventListener('abort', abort);
    socket.terminate();
  }
}

async function pump(input: Readable, socket: WebSocket): Promise<void> {
  const send = (bytes: Buffer) => new Promise<void>((sent) => socket.send(bytes, () => sent()));
  for await (const chunk of input as AsyncIterable<Buffer>) {
    await send(Buffer.concat([Buffer.from([channel.stdin]), chunk]));
  }
  await send(Buffer.from([channel.close, channel.stdin]));
}
