import type { Writable } from 'node:stream';
import type { WebSocket } from 'ws';
import { channel, terminalSizeSchema } from '#api/exec.ts';
import type { Log } from '#host/log/log.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { parseJson } from '../http.ts';

/** A process that takes a client's input. */
export interface InputTaker {
  readonly stdin?: Writable | undefined;
  /** Called at the end of the client's input. */
  endInput(): void;
  resize(columns: number, rows: number): Promise<void>;
}

/**
 * Passes a client's frames to a process, at the pace at which it reads, until it is disposed. Frames that came earlier
 * wait in a paused socket.
 */
export function passInput(socket: WebSocket, to: InputTaker, log: Log): Disposable {
  const resume = () => socket.resume();
  const refused = (error: Error) => log.debug('input of a process not taken', { err: error.message });
  const onMessage = (data: WebSocket.RawData, isBinary: boolean) => {
    if (isBinary) take(messageBytes(data), to, socket, log);
  };
  to.stdin?.on('drain', resume).on('close', resume).on('error', refused);
  socket.on('message', onMessage);
  socket.resume();
  return {
    [Symbol.dispose]() {
      socket.off('message', onMessage);
      to.stdin?.off('drain', resume).off('close', resume).off('error', refused);
    },
  };
}

function take(frame: Buffer, to: InputTaker, socket: WebSocket, log: Log): void {
  const body = frame.subarray(1);
  switch (frame[0]) {
    case channel.stdin:
      if (to.stdin === undefined || !to.stdin.writable || to.stdin.write(body)) return;
      socket.pause(); // until it drains or closes
      return;
    case channel.close:
      if (body[0] === channel.stdin) to.endInput();
      return;
    case channel.resize:
      try {
        const { Width, Height } = parseJson(body.toString('utf8'), terminalSizeSchema);
        to.resize(Width, Height).catch((error: unknown) => log.error('resize failed', error));
      } catch (error) {
        log.error('unusable terminal size from a client', error);
      }
      return;
    default:
      log.warn('frame on an unknown channel from a client', { channel: frame[0] });
  }
}
