import { connect } from 'node:net';

/** Returns whether a process serves a unix socket. A socket without a process is a leftover of a killed process. */
export async function isServed(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
