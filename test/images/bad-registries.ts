import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { type AddressInfo, connect, createServer, type Server as TcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { digestOf } from '#image/oci.ts';
import type { WrittenImage } from './layout-writer.ts';

/** A server that accepts connections and never answers. */
export async function startSilentServer(): Promise<{ readonly name: string } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined));
  }).listen(0, '127.0.0.1');
  return await listening(server, sockets);
}

/**
 * A registry with one image. It sends the first bytes of layers, of all by default, and then stops or closes the
 * connection.
 */
export async function startTornRegistry(
  image: WrittenImage,
  then: 'stalls' | 'closes' | 'resets' = 'stalls',
  torn: readonly string[] = image.layerDigests,
) {
  let sentBytes = 0;
  const server = createHttpServer((request, response) => {
    const isManifest = request.url?.includes('/manifests/') === true;
    const digest = isManifest ? image.manifestDigest : (/sha256:[0-9a-f]{64}/.exec(request.url ?? '')?.[0] ?? '');
    if (digest === '') {
      response.end();
      return;
    }
    const body = readFileSync(join(image.layout, 'blobs', digest.replace(':', '/')));
    const type = isManifest ? 'application/vnd.oci.image.manifest.v1+json' : 'application/octet-stream';
    response.writeHead(200, { 'content-type': type, 'content-length': body.length, 'docker-content-digest': digest });
    if (request.method === 'HEAD') response.end();
    else if (torn.includes(digest)) {
      sentBytes += 10;
      response.write(body.subarray(0, 10), () => {
        if (then === 'closes') request.socket.end();
        if (then === 'resets') request.socket.resetAndDestroy();
      });
    } else response.end(body);
  });
  return await served(server, () => sentBytes);
}

/** A registry with an image whose one layer continues until the client leaves; its manifest claims `layerBytes`. */
export async function startEndlessRegistry(layerBytes: number) {
  let sentBytes = 0;
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: [`sha256:${'a'.repeat(64)}`] },
  });
  const manifestType = 'application/vnd.oci.image.manifest.v1+json';
  const configDigest = digestOf(config);
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: manifestType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: configDigest, size: config.length },
    layers: [
      {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest: `sha256:${'b'.repeat(64)}`,
        size: layerBytes,
      },
    ],
  });
  const piece = randomBytes(1024 * 1024);
  const server = createHttpServer((request, response) => {
    const { url = '' } = request;
    const document = url.includes('/manifests/') ? manifest : url.includes(configDigest) ? config : undefined;
    const digest = document === undefined ? {} : { 'docker-content-digest': digestOf(document) };
    const type = document === manifest ? manifestType : 'application/octet-stream';
    response.writeHead(200, { 'content-type': type, ...digest });
    if (document !== undefined || request.method === 'HEAD' || !url.includes('/blobs/')) {
      response.end(request.method === 'HEAD' ? '' : document);
      return;
    }
    const send = () => {
      while (!response.destroyed) {
        sentBytes += piece.length;
        if (!response.write(piece)) break;
      }
    };
    response.on('drain', send);
    send();
  });
  return await served(server, () => sentBytes);
}

/** Serves on loopback until it is disposed of. */
async function served(server: Server, sentBytes: () => number) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // SAFE: a server that listens on TCP has such an address.
  const { port } = server.address() as AddressInfo;
  return {
    name: `localhost:${port}`,
    sentBytes,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** A registry behind a slow line: all that its clients get together passes at this rate. */
export async function startSlowLine(
  registry: string,
  bytesPerSecond: number,
): Promise<{ readonly name: string } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  let freeAtMs = performance.now();
  const pass = async (from: Socket, to: Socket) => {
    for await (const bytes of from as AsyncIterable<Buffer>) {
      freeAtMs = Math.max(freeAtMs, performance.now()) + (bytes.length / bytesPerSecond) * 1000;
      await delay(freeAtMs - performance.now());
      to.write(bytes);
    }
    to.end();
  };
  const server = createServer((client) => {
    const far = connect(Number(registry.split(':')[1]), '127.0.0.1');
    for (const socket of [client, far]) sockets.add(socket.on('error', () => undefined));
    client.pipe(far);
    client.once('close', () => far.destroy());
    pass(far, client).catch(() => client.destroy());
  }).listen(0, '127.0.0.1');
  return await listening(server, sockets);
}

/** Waits until it listens; its connections end with it. */
async function listening(
  server: TcpServer,
  sockets: ReadonlySet<Socket>,
): Promise<{ readonly name: string } & AsyncDisposable> {
  await once(server, 'listening');
  // SAFE: a server that listens on TCP has such an address.
  const { port } = server.address() as AddressInfo;
  return {
    name: `localhost:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}
