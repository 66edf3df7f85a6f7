import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import { dirname } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import { PodvmError } from '#base/errors.ts';
import type { NodeDetails } from '#api/node.ts';
import { stopRequestSchema } from '#api/pods.ts';
import { isServed } from '#host/is-served.ts';
import type { ImageStore } from '#image/images.ts';
import type { RunningPod } from '#pod/pods.ts';
import { checkCommand } from '#sandbox/container/process-size.ts';
import { consoleLog } from './console-log.ts';
import { detailsOf, summaryOf } from './describe-pod.ts';
import { serveExec } from './exec-session.ts';
import { readJson, sendError, sendJson, sendStream } from './http.ts';
import { serveImages } from './image-routes.ts';
import { chooseContainer, podLogs } from './pod-logs.ts';
import { type RunParts, serveRun } from './run-session.ts';

export interface AdminParts extends RunParts {
  readonly images: ImageStore;
}

/** Disposing refuses new clients, ends the runs of those that are there, and takes the socket away. */
export interface AdminServer extends AsyncDisposable {
  /** Resolves when no `podvm run` of any client goes on. */
  idle(): Promise<void>;
}

/** Largest WebSocket message from a client: a manifest. */
const maxMessageBytes = 16 * 1024 * 1024;
/** Of a request: a command is in its URL, and the kernel takes 2 MiB of one, which may be three times that there. */
const maxHeaderBytes = 8 * 1024 * 1024;

/**
 * Serves the admin API (`#api`) on a unix socket that only root may open. Errors: `busy` when another process serves
 * it.
 */
export async function serveAdmin(socketPath: string, parts: AdminParts): Promise<AdminServer> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  await removeStale(socketPath);
  const runs = new Set<Promise<void>>();
  const server = createServer({ maxHeaderSize: maxHeaderBytes }, (request, response) => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    answer(parts, request, response, gone.signal).catch((error: unknown) => sendError(response, error));
  });
  const sockets = new WebSocketServer({ noServer: true, maxPayload: maxMessageBytes, perMessageDeflate: false });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('error', (error) => parts.log.warn('client failed', { err: error.message }));
      const session = converse(parts, request, client).catch((error: unknown) => {
        parts.log.error('session failed', error);
        client.terminate();
      });
      runs.add(session);
      void session.finally(() => runs.delete(session));
    });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  await chmod(socketPath, 0o600);
  return {
    async idle() {
      while (runs.size > 0) await Promise.all(runs);
    },
    async [Symbol.asyncDispose]() {
      server.close();
      for (const client of sockets.clients) client.close(1001);
      await Promise.all(runs);
      server.closeAllConnections();
      await rm(socketPath, { force: true });
    },
  };
}

async function removeStale(socketPath: string): Promise<void> {
  const answered = await isServed(socketPath);
  if (answered) throw new PodvmError('busy', `Cannot serve ${socketPath}: another podvm serves it`);
  await rm(socketPath, { force: true });
}

async function answer(
  parts: AdminParts,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const url = urlOf(request);
  if (await serveImages(parts.images, request, response, url, signal)) return;
  if (request.method === 'GET' && url.pathname === '/v1/pods') {
    sendJson(response, 200, parts.pods.list().map(summaryOf));
    return;
  }
  if (request.method === 'GET' && url.pathname === '/v1/node') {
    sendJson(response, 200, { waitingMachines: parts.sandboxes.waitingMachines } satisfies NodeDetails);
    return;
  }
  const { pod, verb } = findPod(parts, url);
  const flag = (name: string) => url.searchParams.get(name) === 'true';
  switch (`${request.method} ${verb}`) {
    case 'GET ':
      sendJson(response, 200, await detailsOf(pod, signal));
      return;
    case 'POST stop': {
      const { graceSeconds } = await readJson(request, stopRequestSchema);
      await pod.terminate(graceSeconds);
      sendJson(response, 200, summaryOf(pod));
      return;
    }
    case 'GET logs': {
      const tail = url.searchParams.get('tail');
      const query = {
        container: url.searchParams.get('container') ?? undefined,
        follow: flag('follow'),
        previous: flag('previous'),
        tailLines: tail === null ? undefined : Number.parseInt(tail, 10),
      };
      await sendStream(response, 'application/octet-stream', podLogs(pod, query, signal), signal);
      return;
    }
    case 'GET console': {
      const { sandbox } = pod;
      if (sandbox === undefined)
        throw new PodvmError('failedPrecondition', `Cannot show the console of ${pod.name}: it has no machine yet`);
      await sendStream(
        response,
        'text/plain',
        consoleLog(sandbox.consolePath, flag('follow'), sandbox.ended, signal),
        signal,
      );
      return;
    }
    default:
      throw new PodvmError('notFound', `Cannot answer ${request.method} ${url.pathname}: there is no such call`);
  }
}

function urlOf(request: IncomingMessage): URL {
  const url = URL.parse(`http://podvm${request.url ?? '/'}`);
  if (url === null) throw new PodvmError('invalid', 'Cannot read the request: its path is none');
  return url;
}

function findPod(parts: AdminParts, url: URL): { pod: RunningPod; verb: string } {
  const match = /^\/v1\/pods\/([^/]+)\/([^/]+)(?:\/([a-z]+))?$/.exec(url.pathname);
  const [, namespace, name, verb = ''] = match ?? [];
  if (namespace === undefined || name === undefined) {
    throw new PodvmError('notFound', `Cannot answer ${url.pathname}: there is no such path`);
  }
  const pod = parts.pods.find(namespace === '_' ? undefined : decoded(namespace), decoded(name));
  return { pod, verb };
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new PodvmError('invalid', 'Cannot read the request: its path is badly encoded', { cause });
  }
}

async function converse(parts: AdminParts, request: IncomingMessage, client: WebSocket): Promise<void> {
  const url = urlOf(request);
  if (url.pathname === '/v1/run') return await serveRun(client, parts);
  const query = url.searchParams;
  const start = async () => {
    const { pod, verb } = findPod(parts, url);
    if (verb !== 'exec') throw new PodvmError('notFound', `Cannot answer ${url.pathname}: there is no such path`);
    const container = chooseContainer(pod, query.get('container') ?? undefined);
    const command = query.getAll('command');
    checkCommand(`a command in ${pod.name}/${container}`, command);
    const live = pod.sandbox?.container(container);
    if (live === undefined)
      throw new PodvmError('failedPrecondition', `Cannot run a command in ${pod.name}/${container}: it does not run`);
    const size = (name: string) => (query.has(name) ? { [name]: Number(query.get(name)) } : {});
    const spec = {
      command,
      tty: query.get('tty') === 'true',
      stdin: query.get('stdin') === 'true',
      ...size('columns'),
      ...size('rows'),
    };
    return await live.exec(spec, AbortSignal.timeout(60_000));
  };
  await serveExec(client, query.get('tty') === 'true', start, parts.log);
}
