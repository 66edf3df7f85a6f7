import { once } from 'node:events';
import type { WebSocket } from 'ws';
import { channel, type ExecStatus } from '#api/exec.ts';
import type { Log } from '#host/log/log.ts';
import type { Container } from '#sandbox/sandbox.ts';
import { errorBodyOf } from '../error-body.ts';
import { passInput } from './input-frames.ts';
import { framed, send } from './run-session.ts';

/** A running container, and whether the end of a client's input ends its own (a Pod's `stdinOnce`). */
export interface InputTarget {
  readonly container: Container;
  readonly stdinOnce: boolean;
}

/** Serves one `WS .../input`: see `#api/exec.ts`. Ends with the container or the client. */
export async function serveInput(socket: WebSocket, find: () => InputTarget, log: Log): Promise<void> {
  socket.pause(); // input waits until there is a reader
  try {
    const { container, stdinOnce } = find();
    const taker = {
      stdin: container.stdin,
      endInput: () => void (stdinOnce && container.stdin?.end()),
      resize: (columns: number, rows: number) => container.resize(columns, rows, AbortSignal.timeout(resizeMs)),
    };
    using _input = passInput(socket, taker, log);
    if (socket.readyState === socket.OPEN) await Promise.race([container.exited, once(socket, 'close')]);
  } catch (error) {
    const status: ExecStatus = { error: errorBodyOf(error) };
    await send(socket, framed(channel.status, Buffer.from(JSON.stringify(status))));
  }
  socket.resume();
  socket.close();
}

const resizeMs = 30_000;
