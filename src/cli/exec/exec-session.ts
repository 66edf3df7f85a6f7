import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { channel, type ExecStatus, execStatusSchema } from '#api/exec.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { type Client, connectionClosed, connectionFailed } from '../client.ts';
import { podPath } from '../pods/pod-name.ts';

export interface ExecSpec {
  readonly pod: string;
  readonly container: string | undefined;
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  /** Runs it in a new container of this image, beside the container. */
  readonly besideWith?: string;
}

/** Receives the output of a command, at its own pace. */
export interface ExecOutput {
  readonly stdout: (bytes: Buffer) => Promise<void>;
  readonly stderr: (bytes: Buffer) => Promise<void>;
}

/** Opens the WebSocket of a command in a container. */
export function openExec(
  client: Client,
  { pod, container, command, tty, stdin, besideWith }: ExecSpec,
  size?: { readonly Width: number; readonly Height: number },
): WebSocket {
  const query = new URLSearchParams({ tty: String(tty), stdin: String(stdin) });
  if (container !== undefined) query.set('container', container);
  for (const word of command) query.append('command', word);
  if (size !== undefined) {
    query.set('columns', String(size.Width));
    query.set('rows', String(size.Height));
  }
  if (besideWith !== undefined) query.set('image', besideWith);
  return client.open(`${podPath(pod)}/${besideWith === undefined ? 'exec' : 'debug'}?${query.toString()}`);
}

/** Passes output on, in order, until the command's status arrives. Errors: `unavailable`, those of `output`. */
export async function followExec(socket: WebSocket, output: ExecOutput): Promise<ExecStatus> {
  return await new Promise((resolve, reject) => {
    let queue: Promise<void> = Promise.resolve();
    const take = async (frame: Buffer) => {
      const body = frame.subarray(1);
      if (frame[0] === channel.stdout) await output.stdout(body);
      else if (frame[0] === channel.stderr) await output.stderr(body);
      else if (frame[0] === channel.status) resolve(v.parse(execStatusSchema, JSON.parse(body.toString('utf8'))));
    };
    socket.on('message', (data) => {
      const frame = messageBytes(data);
      socket.pause();
      queue = queue
        .then(() => take(frame))
        .catch(reject)
        .finally(() => socket.resume());
    });
    socket.once('error', (cause) => reject(connectionFailed('run the command', cause)));
    socket.once('close', () => void queue.then(() => reject(connectionClosed('run the command'))));
  });
}
