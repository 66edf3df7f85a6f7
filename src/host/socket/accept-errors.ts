import type { Server } from 'node:net';
import { descriptors } from '../process/descriptors.ts';

/**
 * Keeps a listening server running when the kernel has no memory for a connection (`ENOMEM`); without a listener for
 * that error, this process would end. When the descriptor table is full, libuv disconnects clients by itself.
 */
export function outliveAcceptErrors(server: Pick<Server, 'on'>): void {
  server.on('error', () => descriptors.ranOut());
}

/** Disconnects new clients while the reserve is in use: they would hold a descriptor for long. */
export function refuseWhileShort(server: Pick<Server, 'on'>): void {
  outliveAcceptErrors(server);
  server.on('connection', (socket) => {
    if (descriptors.isShort) socket.destroy();
  });
}
