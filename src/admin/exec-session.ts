import type { Readable } from 'node:stream';
import type { WebSocket } from 'ws';
import { channel, type ExecStatus, terminalSizeSchema } from '#api/exec.ts';
import type { Log } from '#host/log.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import { refusalOf } from './exec-refusal.ts';
import { parseJson } from './http.ts';
import { send } from './run-session.ts';

/** SIGHUP: sent to a process when its terminal is gone. */
const hangUp = 1;
const kill = 9;

/**
 * Serves one `WS .../exec`: see `#api/exec.ts`. `start` is called once. The process ends when the client disconnects.
 */
export async function serveExec(socket: WebSocket, tty: boolean, start: () => Promise<Exec>, log: Log): Promise<void> {
  socket.pause(); // input waits until the process reads it
  let status: ExecStatus;
  try {
    const exec = await start();
    const gone = () =>
      void exec.kill(tty ? hangUp : kill).catch((error: unknown) => log.error('exec outlived its client', error));
    socket.once('close', gone);
    exec.stdin?.on('drain', () => socket.resume());
    exec.stdin?.on('close', () => socket.resume());
    exec.stdin?.on('error', (error) => log.debug('input of an exec not taken', { err: error.message }));
    socket.on('message', (data, isBinary) => {
      if (isBinary) take(frameOf(data), exec, socket, log);
    });
    socket.resume();
    if (socket.readyState !== socket.OPEN) gone();
    const outputs = [copy(exec.stdout, channel.stdout, socket)];
    if (exec.stderr !== undefined) outputs.push(copy(exec.stderr, channel.stderr, socket));
    const [{ exitCode }] = await Promise.all([exec.exited, ...outputs]);
    socket.off('close', gone);
    status = { exitCode };
  } catch (error) {
    status = refusalOf(error);
  }
  socket.resume();
  await send(socket, framed(channel.status, Buffer.from(JSON.stringify(status))));
  socket.close();
}

function take(frame: Buffer, exec: Exec, socket: WebSocket, log: Log): void {
  const body = frame.subarray(1);
  switch (frame[0]) {
    case channel.stdin:
      if (exec.stdin === undefined || !exec.stdin.writable || exec.stdin.write(body)) return;
      socket.pause(); // until it drains or closes
      return;
    case channel.close:
      if (body[0] === channel.stdin) exec.stdin?.end();
      return;
    case channel.resize:
      try {
        const { Width, Height } = parseJson(body.toString('utf8'), terminalSizeSchema);
        exec.resize(Width, Height).catch((error: unknown) => log.error('resize failed', error));
      } catch (error) {
        log.error('unusable terminal size from a client', error);
      }
      return;
    default:
      log.warn('frame on an unknown channel from a client', { channel: frame[0] });
  }
}

async function copy(from: Readable, to: number, socket: WebSocket): Promise<void> {
  for await (const chunk of from as AsyncIterable<Uint8Array>) await send(socket, framed(to, chunk));
}

function framed(to: number, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([to]), body]);
}

function frameOf(data: WebSocket.RawData): Buffer {
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Array.isArray(data) ? Buffer.concat(data) : data;
}
