import { once } from 'node:events';
import { createServer } from 'node:http';
import { outliveAcceptErrors } from '#host/accept-errors.ts';
import type { ImageStore } from '#image/images.ts';
import { imageRoutes } from './image-routes.ts';
import { answerBy } from './routes.ts';

/** Serves only the image calls of the admin API, on a unix socket until it is disposed. */
export async function serveImageRoutes(socketPath: string, images: ImageStore): Promise<AsyncDisposable> {
  const server = createServer(answerBy(imageRoutes(images)));
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
