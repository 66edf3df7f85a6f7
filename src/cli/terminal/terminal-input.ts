import { spawnSync } from 'node:child_process';
import { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { channel } from '#api/exec.ts';
import { PodvmError } from '#base/errors.ts';
import type { Terminal } from './terminal.ts';

/** Checks that standard input is a terminal. `to`: the command that gets it. Errors: `invalid`. */
export function requireTerminal({ stdin }: Terminal, to: string): void {
  if (stdin.isTTY) return;
  throw new PodvmError('invalid', `Cannot give ${to} a terminal: standard input is not a terminal`, {
    fix: 'Omit -t.',
  });
}

/** The size of the terminal, if there is one. */
export function sizeOf({ stdout }: Terminal): { readonly Width: number; readonly Height: number } | undefined {
  return stdout.columns > 0 && stdout.rows > 0 ? { Width: stdout.columns, Height: stdout.rows } : undefined;
}

/** Makes the terminal raw until it is disposed. */
export function makeRaw({ stdin }: Terminal): Disposable {
  ignoreErrors(stdin);
  stdin.setRawMode(true);
  // libuv's raw mode still converts \n to \r\n, which only the guest's terminal may do: `vi` moves down by \n.
  spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] });
  return { [Symbol.dispose]: () => stdin.setRawMode(false) };
}

/** Reports the size of the terminal, now and when it changes, until it is disposed. */
export function followSize(socket: WebSocket, terminal: Terminal): Disposable {
  const report = () => {
    const size = sizeOf(terminal);
    if (size !== undefined) sendFrame(socket, channel.resize, JSON.stringify(size));
  };
  report();
  terminal.stdout.on('resize', report);
  return { [Symbol.dispose]: () => terminal.stdout.off('resize', report) };
}

/** Ctrl-P and Ctrl-Q, as docker and podman have it. */
const detachKeys = [0x10, 0x11] as const;

/**
 * Forwards standard input until it is disposed. Input before and after that is not read, and no listener is left.
 * `leave`: called when the two keys to detach were pressed, one after the other.
 */
export function pumpInput(socket: WebSocket, { stdin }: Terminal, leave?: () => void): Disposable {
  let isOver = false;
  let last: number | undefined;
  const pump = (chunk: Buffer) => {
    stdin.pause();
    for (const key of chunk) {
      if (last === detachKeys[0] && key === detachKeys[1]) leave?.();
      last = key;
    }
    socket.send(Buffer.concat([Buffer.from([channel.stdin]), chunk]), () => {
      if (!isOver) stdin.resume();
    });
  };
  const close = () => sendFrame(socket, channel.close, Buffer.from([channel.stdin]));
  ignoreErrors(stdin);
  if (stdin instanceof Socket) stdin.ref();
  if (stdin.readableEnded) close();
  stdin.on('data', pump);
  stdin.on('end', close);
  stdin.on('error', close); // EIO: the terminal is gone, or this process may not read it
  stdin.resume(); // an earlier pump has paused it
  return {
    [Symbol.dispose]() {
      isOver = true;
      stdin.off('data', pump).off('end', close).off('error', close).pause();
      if (stdin instanceof Socket) stdin.unref(); // a terminal or pipe would keep the process alive; a file does not
    },
  };
}

const ignore = () => undefined;

/** Ignores errors of a terminal that is gone, at any time: SIGHUP ends the command. */
function ignoreErrors(stdin: NodeJS.ReadStream): void {
  stdin.off('error', ignore).on('error', ignore);
}

function sendFrame(socket: WebSocket, to: number, body: string | Buffer): void {
  if (socket.readyState === socket.OPEN) socket.send(Buffer.concat([Buffer.from([to]), Buffer.from(body)]));
}
