import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { isServed } from '#host/socket/is-served.ts';

/** Limit of one message in kubelet and containerd, in bytes. */
export const maxMessageBytes = 16 * 1024 * 1024;
/** Time for pending calls to end when the server closes, in `ms`. */
const drainTimeoutMs = 5000;

/**
 * Serves gRPC on a unix socket that only root may open; `add` registers the services. Disposing refuses new calls,
 * gives pending ones a short time, cancels the rest, and removes the socket. Errors: `busy` when another process serves
 * the socket.
 */
export async function serveGrpc(socketPath: string, add: (server: Server) => void): Promise<AsyncDisposable> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  if (await isServed(socketPath)) {
    throw new PodvmError('busy', `Cannot serve ${socketPath}: another process serves it`, {
      fix: 'Stop that process, or set another criSocket in the configuration.',
    });
  }
  await rm(socketPath, { force: true }); // left by a killed process
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.enable_channelz': 0, // figures that no one reads, of each call
  });
  add(server);
  // Listens with its own server, because the gRPC server does not handle errors of accepting connections.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = createServer((socket) => injector.injectConnection(socket));
  listener.listen(socketPath);
  await once(listener, 'listening');
  outliveAcceptErrors(listener);
  await chmod(socketPath, 0o600);
  return {
    async [Symbol.asyncDispose]() {
      listener.close();
      const late = setTimeout(() => server.forceShutdown(), drainTimeoutMs);
      await new Promise<void>((resolve) => {
        server.tryShutdown(() => resolve());
      });
      clearTimeout(late);
      await rm(socketPath, { force: true });
    },
  };
}
