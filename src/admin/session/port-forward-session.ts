import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import type { ReachedPod } from '../pods/reached-pod.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { errorBodyOf } from '../error-body.ts';
import { send } from './run-session.ts';

const dialMs = 30_000;

/**
 * Serves one `WS .../port-forward`: one connection to a port of a pod, at 127.0.0.1 in the pod. Binary frames carry its
 * bytes, and an empty one ends its direction. A failure is reported by a text frame with an ErrorBody.
 */
export async function servePortForward(
  socket: WebSocket,
  port: number,
  find: () => ReachedPod,
  log: Log,
): Promise<void> {
  socket.pause(); // until the connection exists
  let connection: Duplex | undefined;
  try {
    const made = await dial(find(), port);
    connection = made;
    socket.once('close', () => made.destroy());
    if (socket.readyState !== socket.OPEN) return;
    socket.on('message', (data, isBinary) => {
      const bytes = messageBytes(data);
      if (!isBinary || made.writableEnded) return;
      if (bytes.length === 0) return void made.end();
      if (made.write(bytes)) return;
      socket.pause();
      made.once('drain', () => socket.resume());
    });
    socket.resume();
    for await (const chunk of made as AsyncIterable<Uint8Array>) await send(socket, chunk);
    await send(socket, Buffer.alloc(0));
    await finished(made); // the client may still send
  } catch (error) {
    if (connection === undefined) await send(socket, JSON.stringify(errorBodyOf(error)));
    else log.debug('forwarded connection ended', { err: String(error) });
  } finally {
    connection?.destroy();
    socket.resume();
    socket.close();
  }
}

async function dial({ name, sandbox }: ReachedPod, port: number): Promise<Duplex> {
  if (sandbox === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot connect to ${name}: it has no machine yet`, {
      fix: 'Try again when `podvm ps` shows the pod as Running.',
    });
  }
  return await sandbox.dial(port, undefined, AbortSignal.timeout(dialMs));
}
