import { connect } from 'node:net';

/** Whether some process serves a unix socket: one that nobody answers on is what a killed process left. */
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
