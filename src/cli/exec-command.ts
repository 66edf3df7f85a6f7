import { spawnSync } from 'node:child_process';
import { Socket } from 'node:net';
import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { channel, execStatusSchema } from '#api/exec.ts';
import { type Client, connectionClosed, fromErrorBody } from './client.ts';
import { podPath } from './pod-name.ts';
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
  const { stdin, stdout } = terminal;
  if (options.tty && !stdin.isTTY) {
    throw new PodvmError('invalid', 'Cannot give the command a terminal: standard input is not a terminal', {
      fix: 'Omit -t.',
    });
  }
  const query = new URLSearchParams({ tty: String(options.tty), stdin: String(options.stdin) });
  if (options.container !== undefined) query.set('container', options.container);
  for (const word of options.command) query.append('command', word);
  if (options.tty && stdout.columns > 0 && stdout.rows > 0) {
    query.set('columns', String(stdout.columns));
    query.set('rows', String(stdout.rows));
  }
  const socket = client.open(`${podPath(options.pod)}/exec?${query.toString()}`);
  const onResize = () =>
    sendFrame(socket, channel.resize, JSON.stringify({ Width: stdout.columns, Height: stdout.rows }));
  const input = new DisposableStack();
  try {
    if (options.tty) {
      stdin.setRawMode(true);
      // libuv's raw mode still converts
      //  to \r
      // , which only the guest's terminal may do: `vi` moves down by
      // .
      spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] });
      stdout.on('resize', onResize);
    }
    if (options.stdin) socket.once('open', () => input.use(pumpInput(socket, terminal)));
    return await follow(socket, terminal);
  } finally {
    stdout.off('resize', onResize);
    if (options.tty) stdin.setRawMode(false);
    input.dispose();
    if (stdin instanceof Socket) stdin.unref(); // a terminal or pipe would keep the process alive; a file does not
    socket.terminate();
  }
}

/** Forwards standard input until it is disposed. Later input is not read, and no listener is left. */
function pumpInput(socket: WebSocket, { stdin }: Terminal): Disposable {
  let isOver = false;
  const pump = (chunk: Buffer) => {
    stdin.pause();
    socket.send(Buffer.concat([Buffer.from([channel.stdin]), chunk]), () => {
      if (!isOver) stdin.resume();
    });
  };
  const close = () => sendFrame(socket, channel.close, Buffer.from([channel.stdin]));
  stdin.on('data', pump);
  stdin.on('end', close);
  stdin.on('error', close); // EIO: the terminal is gone, or this process may not read it
  return {
    [Symbol.dispose]() {
      isOver = true;
      stdin.off('data', pump).off('end', close).pause(); // the terminal may still report an error
    },
  };
}

function sendFrame(socket: WebSocket, to: number, body: string | Buffer): void {
  if (socket.readyState === socket.OPEN) socket.send(Buffer.concat([Buffer.from([to]), Buffer.from(body)]));
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
    socket.once('error', (cause) =>
      reject(new PodvmError('unavailable', `Cannot run the command: ${cause.message}`, { cause })),
    );
    socket.once('close', () => {
      void queue.then(() => reject(connectionClosed('run the command')));
    });
  });
}
