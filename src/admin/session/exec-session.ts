import type { Readable } from 'node:stream';
import type { WebSocket } from 'ws';
import { channel, type ExecStatus } from '#api/exec.ts';
import { kindOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import { retry } from '#host/wait.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import { refusalOf } from './exec-refusal.ts';
import { passInput } from './input-frames.ts';
import { framed, send } from './run-session.ts';

/** SIGHUP: sent to a process when its terminal is gone. */
const hangUp = 1;
const kill = 9;
const killAgainMs = 1000;

/**
 * Serves one `WS .../exec`: see `#api/exec.ts`. `start` is called once. The process ends when the client disconnects.
 */
export async function serveExec(socket: WebSocket, tty: boolean, start: () => Promise<Exec>, log: Log): Promise<void> {
  socket.pause(); // input waits until the process reads it
  let status: ExecStatus;
  try {
    const exec = await start();
    const gone = () =>
      void endProcess(exec, tty).catch((error: unknown) => log.error('exec outlived its client', error));
    socket.once('close', gone);
    passInput(socket, { ...exec, endInput: () => exec.stdin?.end() }, log);
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

/** Ends the process of a client that is gone; that of a paused pod once the pod continues. */
async function endProcess(exec: Exec, tty: boolean): Promise<void> {
  let hasEnded = false;
  const noteEnd = () => void (hasEnded = true);
  exec.exited.then(noteEnd, noteEnd);
  const isPassing = (error: unknown) => !hasEnded && kindOf(error) === 'unavailable';
  const signal = () => (hasEnded ? Promise.resolve() : exec.kill(tty ? hangUp : kill));
  await retry(signal, isPassing, { everyMs: killAgainMs });
}

async function copy(from: Readable, to: number, socket: WebSocket): Promise<void> {
  for await (const chunk of from as AsyncIterable<Uint8Array>) await send(socket, framed(to, chunk));
}
