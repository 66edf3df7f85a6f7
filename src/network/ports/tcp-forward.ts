import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { isInside } from '#host/inside-namespaces.ts';
import { refuseWhileShort } from '#host/socket/accept-errors.ts';
import type { PortAddress } from '../port-address.ts';
import { listenOutside } from './outside-ports.ts';

/** Maximum simultaneous connections through one address of a host port. */
const maxConnections = 1024;

/**
 * Listens on an address of the host and forwards each connection to the address that `to` returns at that time; resets
 * it if that is undefined. Disposing frees the address and ends the connections. Errors: those of bind(2), as Node's.
 */
export async function listenTcp(
  { address, port }: PortAddress,
  to: () => { readonly address: string; readonly port: number } | undefined,
): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  const keep = (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  };
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    client.on('error', () => undefined); // `close` reports it
    const target = to();
    if (target === undefined || open.size >= 2 * maxConnections) {
      client.resetAndDestroy();
      return;
    }
    const pod = connect({ host: target.address, port: target.port, allowHalfOpen: true });
    for (const socket of [client, pod]) keep(socket);
    pod.once('connect', () => {
      client.pipe(pod);
      pod.pipe(client);
    });
    pod.on('error', () => undefined); // no listener there, or it was reset
    // `pipe` passes on an orderly end, and data on its way still arrives.
    pod.once('close', (hadError) => {
      if (hadError || !pod.readableEnded) client.resetAndDestroy();
    });
    client.once('close', (hadError) => {
      if (hadError || !client.readableEnded) pod.resetAndDestroy();
    });
  });
  server.unref();
  if (isInside) server.listen(await listenOutside({ address, port }, 'TCP'));
  else server.listen({ port, host: address, ipv6Only: true, exclusive: true });
  await once(server, 'listening');
  refuseWhileShort(server);
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of open) socket.resetAndDestroy();
      await closed;
    },
  };
}
