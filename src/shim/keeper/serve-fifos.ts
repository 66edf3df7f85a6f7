import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { messageOf, PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import type { KeptFifos } from './kept-fifos.ts';
import { type KeeperAnswer, type KeeperRequest, maxLineBytes } from './keeper-sockets.ts';

/** Serves the daemon on the keeper's own socket. */
export async function serveFifos(socketPath: string, fifos: KeptFifos): Promise<Server> {
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    socket.on('error', () => undefined);
    answer(socket, fifos).catch((error: unknown) => socket.end(line({ written: 0, error: messageOf(error) })));
  });
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  return server;
}

async function answer(socket: Socket, fifos: KeptFifos): Promise<void> {
  const request = await readRequest(socket);
  switch (request.do) {
    case 'carry': {
      const fifo = await fifos.open(request.path);
      socket.write(line({ written: await fifo.carry(socket) }));
      socket.resume();
      return;
    }
    case 'hold':
      await fifos.open(request.path);
      break;
    case 'end':
      await fifos.end(request.path);
      break;
    case 'forget':
      fifos.forget(request.path);
      break;
    case 'watch':
      socket.resume();
      socket.write(line({ written: 0 }));
      return;
  }
  socket.end(line({ written: 0 }));
}

const line = (answered: KeeperAnswer) => `${JSON.stringify(answered)}\n`;

/** Reads the first line; the socket is paused after it. */
async function readRequest(socket: Socket): Promise<KeeperRequest> {
  let text = '';
  while (!text.endsWith('\n')) {
    socket.resume();
    const [bytes] = (await once(socket, 'data')) as [Buffer]; // SAFE: no encoding is set
    socket.pause();
    text += bytes.toString('utf8');
    if (text.length > maxLineBytes) throw new PodvmError('invalid', 'Cannot read the request: it is too long');
  }
  return JSON.parse(text) as KeeperRequest; // SAFE: only the daemon may open the socket
}
