import { text } from 'node:stream/consumers';
import type { IncomingMessage } from 'node:http';
import * as v from 'valibot';
import { WebSocket } from 'ws';
import { request } from '#host/socket/node-http.ts';
import { type ErrorKind, PodvmError, errorKinds } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { type ErrorBody, errorBodySchema } from '#api/pods.ts';

/** Client of the admin API of one podvm process, over its unix socket. */
export interface Client {
  /** `signal` ends the connection, as that of `stream`. */
  get<S extends v.GenericSchema>(path: string, schema: S, signal?: AbortSignal): Promise<v.InferOutput<S>>;
  send<S extends v.GenericSchema>(
    method: 'POST' | 'DELETE',
    path: string,
    body: unknown,
    schema: S,
  ): Promise<v.InferOutput<S>>;
  /** Streams the response's body. */
  /** `signal` ends the connection; both the request and the answer then fail with its reason. */
  stream(method: 'GET' | 'POST', path: string, body?: unknown, signal?: AbortSignal): Promise<IncomingMessage>;
  open(path: string): WebSocket;
}

export function createClient(socketPath: string): Client {
  // Without a name for TLS, Node examines whether the host is an address, by expressions that take 4 ms to compile.
  const there = { socketPath, agent: false, servername: '' } as const;
  const call = async (method: string, path: string, body: unknown, signal?: AbortSignal): Promise<IncomingMessage> => {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      let answer: IncomingMessage | undefined;
      const outgoing = request({ ...there, method, path }, (incoming) => {
        answer = incoming;
        resolve(incoming);
      });
      const abort = () => {
        reject(signal?.reason);
        (answer ?? outgoing).destroy(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      outgoing.once('close', () => signal?.removeEventListener('abort', abort));
      if (signal?.aborted === true) abort();
      outgoing.once('error', (cause: NodeJS.ErrnoException) => reject(nobodyThere(socketPath, cause)));
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
    if ((response.statusCode ?? 500) < 400) return response;
    throw errorOf(await text(response));
  };
  const json = async <S extends v.GenericSchema>(response: IncomingMessage, schema: S): Promise<v.InferOutput<S>> =>
    v.parse(schema, JSON.parse(await text(response)));
  return {
    get: async (path, schema, signal) => await json(await call('GET', path, undefined, signal), schema),
    send: async (method, path, body, schema) => await json(await call(method, path, body), schema),
    stream: (method, path, body, signal) => call(method, path, body, signal),
    open: (path) => new WebSocket(`ws+unix://${socketPath}:${path}`, { perMessageDeflate: false }),
  };
}

function nobodyThere(socketPath: string, cause: NodeJS.ErrnoException): PodvmError {
  const isNobody = cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED';
  if (isNobody) {
    return new PodvmError('unavailable', 'Cannot reach podvm: no podvm serves this state directory', {
      fix: 'Start a pod with `podvm run IMAGE` or `podvm run FILE`; `podvm ps -a` lists pods that have ended.',
    });
  }
  if (cause.code === 'EACCES') {
    return new PodvmError('denied', `Cannot reach podvm at ${socketPath}: this user may not connect`, {
      fix: 'Run the command as root, for example with sudo, or become a member of the group of its setting socketGroup.',
    });
  }
  return new PodvmError('unavailable', `Cannot reach podvm at ${socketPath}: ${cause.message}`, {
    cause,
    fix: 'Run `podvm doctor`; the podvm that serves may be overloaded or hung.',
  });
}

/**
 * Error for a WebSocket that could not be opened or that failed. `verb`: the command's action, which completes
 * `Cannot`.
 */
export function connectionFailed(
  verb: string,
  cause: NodeJS.ErrnoException & { readonly address?: string },
): PodvmError {
  if (cause.address !== undefined) return nobodyThere(cause.address, cause);
  return new PodvmError('unavailable', `Cannot ${verb}: ${cause.message}`, { cause });
}

/** `verb`: the command's action, which completes `Cannot`. */
export const connectionClosed = (verb: string): PodvmError =>
  new PodvmError('unavailable', `Cannot ${verb}: the connection to podvm was closed`, {
    fix: 'Look for the reason in the terminal or the log of the podvm that served it.',
  });

function errorOf(body: string): PodvmError {
  try {
    return fromErrorBody(v.parse(errorBodySchema, JSON.parse(body)));
  } catch (cause) {
    return new PodvmError('internal', 'Cannot read the response of podvm', { cause });
  }
}

export function fromErrorBody(body: ErrorBody): PodvmError {
  const kind: ErrorKind = errorKinds.find((known) => known === body.kind) ?? 'internal';
  return new PodvmError(kind, body.message, {
    ...(body.fix === undefined ? {} : { fix: body.fix }),
    tail: (body.tail ?? []).map(guestText),
  });
}
