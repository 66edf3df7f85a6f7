import { once } from 'node:events';
import { createServer } from 'node:http';
import { PodvmError } from '#base/errors.ts';
import type { ImageStore } from '#image/images.ts';
import { sendError } from './http.ts';
import { serveImages } from './image-routes.ts';

/** Serves the calls of the admin API that concern images, and no others, on a unix socket until it is disposed. */
export async function serveImageRoutes(socketPath: string, images: ImageStore): Promise<AsyncDisposable> {
  const server = createServer((request, response) => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const url = new URL(request.url ?? '/', 'http://podvm');
    serveImages(images, request, response, url, gone.signal).then(
      (isServed) => {
        if (!isServed) sendError(response, new PodvmError('notFound', `Cannot answer ${url.pathname}: no such call`));
      },
      (error: unknown) => sendError(response, error),
    );
  });
  server.listen(socketPath);
  await once(server, 'listening');
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
