import type { ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6, type Server } from 'node:net';
import * as v from 'valibot';
import { type ListenAnswer, type ListenRequest, listenRequestSchema } from '#network/ports/outside-ports.ts';

/** Listens on the host for a node that is in the namespaces of this user, and gives it the sockets. */
export function listenFor(child: ChildProcess): void {
  child.on('message', (message) => {
    const request = v.safeParse(listenRequestSchema, message);
    if (request.success) answer(child, request.output).catch(() => undefined); // the child has ended
  });
}

async function answer(child: ChildProcess, request: ListenRequest): Promise<void> {
  const { id } = request;
  const give = (said: ListenAnswer, socket?: Server | Socket) =>
    new Promise<void>((resolve) => {
      if (child.connected) child.send(said, socket, {}, () => resolve());
      else resolve();
    });
  try {
    const socket = await (request.protocol === 'TCP' ? tcp(request) : udp(request));
    await give({ id }, socket);
    socket.close(); // the node has its own descriptor of it
  } catch (error) {
    await give({ id, code: (error as NodeJS.ErrnoException).code ?? 'EIO' }); // SAFE: only read
  }
}

async function tcp({ address: host, port }: ListenRequest): Promise<Server> {
  const server = createServer((early) => early.resetAndDestroy());
  server.listen({ port, host, ipv6Only: true, exclusive: true });
  await once(server, 'listening');
  return server;
}

async function udp({ address, port }: ListenRequest): Promise<Socket> {
  const socket = isIPv6(address) ? createSocket({ type: 'udp6', ipv6Only: true }) : createSocket('udp4');
  socket.bind({ address, port, exclusive: true });
  await once(socket, 'listening').catch((error: unknown) => {
    socket.close();
    throw error;
  });
  return socket;
}
