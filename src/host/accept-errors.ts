import type { Server } from 'node:net';
import { descriptors } from './descriptors.ts';

/**
 * Keeps a server that listens when the kernel has no room for a connection (`ENOMEM`), which without a listener would end
 * this process. When the descriptor table is full, libuv disconnects the clients by itself.
 */
export function outliveAcceptErrors(server: Pick<Server, 'on'>): void {
  server.on('error', () => descriptors.ranOut());
}

/** Also disconnects clients that would keep a descriptor for long, while the reserve is in use. */
export function refuseWhileShort(server: Pick<Server, 'on'>): void {
  outliveAcceptErrors(server);
  server.on('connection', (socket) => {
    if (descriptors.isShort) socket.destroy();
  });
}
