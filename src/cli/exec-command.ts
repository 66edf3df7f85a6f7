import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { channel, execStatusSchema } from '#api/exec.ts';
import { type Client, connectionClosed, connectionFailed, fromErrorBody } from './client.ts';
import { podPath } from './pod-name.ts';
import { followSize, makeRaw, pumpInput, requireTerminal, sizeOf } from './terminal-input.ts';
import { type Terminal, errorText, write } from './terminal.ts';

export interface ExecOptions {
  readonly pod: string;
  readonly container: string | undefined;
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
}

/** Runs `podvm exec` and returns the command's exit code. With a tty, the terminal is raw until the command ends. */
export async function execCommand(client: Client, options: ExecOptions, terminal: Terminal): Promise<number> {
  if (options.tty) requireTerminal(terminal, 'the command');
  const query = new URLSearchParams({ tty: String(options.tty), stdin: String(options.stdin) });
  if (options.container !== undefined) query.set('container', options.container);
  for (const word of options.command) query.append('command', word);
  const size = options.tty ? sizeOf(terminal) : undefined;
  if (size !== undefined) {
    query.set('columns', String(size.Width));
    query.set('rows', String(size.Height));
  }
  const socket = client.open(`${podPath(options.pod)}/exec?${query.toString()}`);
  const input = new DisposableStack();
  try {
    if (options.tty) {
      input.use(makeRaw(terminal));
      socket.once('open', () => input.use(followSize(socket, terminal)));
    }
    if (options.stdin) socket.once('open', () => input.use(pumpInput(socket, terminal)));
    return await follow(socket, terminal);
  } finally {
    input.dispose();
    socket.terminate();
  }
}

async function follow(socket: WebSocket, terminal: Terminal): Promise<number> {
  return await new Promise<number>((resolve, reject) => {
    let queue: Promise<void> = Promise.resolve();
    socket.on('message', (data) => {
      const frame = Buffer.isBuffer(data) ? data : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)]);
      const body = frame.subarray(1);
      socket.pause();
      queue = queue
        .then(async () => {
          if (frame[0] === channel.stdout) await write(terminal.stdout, body);
          else if (frame[0] === channel.stderr) await write(terminal.stderr, body);
          else if (frame[0] === channel.status) {
            const status = v.parse(execStatusSchema, JSON.parse(body.toString('utf8')));
            if (!('error' in status)) return resolve(status.exitCode);
            const error = fromErrorBody(status.error);
            if (status.exitCode === undefined) return reject(error);
            await write(terminal.stderr, errorText(error));
            resolve(status.exitCode);
          }
        })
        .catch(reject)
        .finally(() => socket.resume());
    });
    socket.once('error', (cause) => reject(connectionFailed('run the command', cause)));
    socket.once('close', () => {
      void queue.then(() => reject(connectionClosed('run the command')));
    });
  });
}
