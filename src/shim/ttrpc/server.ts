import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { statusOf } from '#base/status-codes.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { asRequest, requestIdOf, traceHeader } from '#host/log/request.ts';
import { isServed } from '#host/socket/is-served.ts';
import type { Log } from '#host/log/log.ts';
import { type Request, RequestSchema, ResponseSchema } from '../schema/generated/ttrpc-request_pb.ts';
import { encodeFrame, FrameReader, frameTypes, type Frame } from './frame.ts';
import type { Handler } from './service.ts';

/** Handlers by the names of services and methods on the wire. */
export type Services = ReadonlyMap<string, ReadonlyMap<string, Handler>>;

/** Containerd opens one connection for each task. */
const maxConnections = 4096;
/** Calls of one connection that are not answered yet, such as the Waits of its execs. */
const maxCalls = 1024;
/** Answers that a client has not read yet, in bytes. */
const maxUnreadBytes = 16 * 1024 * 1024;
/** Time for a client to read the last answers when the server closes, in `ms`. */
const closeTimeoutMs = 2_000;
const nanosPerMs = 1_000_000n;
/** Limit of a timer. */
const maxTimerMs = 2_147_483_647n;

/**
 * Serves ttrpc on a unix socket that only root may open. Disposing cancels pending calls, disconnects clients and removes
 * the socket. Errors: `busy` when another process serves the socket.
 */
export async function serveTtrpc(socketPath: string, services: Services, log: Log): Promise<AsyncDisposable> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  if (await isServed(socketPath)) {
    throw new PodvmError('busy', `Cannot serve ${socketPath}: another process serves it`, {
      fix: 'Stop that process, or set another shimSocket in the configuration.',
    });
  }
  await rm(socketPath, { force: true }); // left by a killed process
  const connections = new Set<Connection>();
  const server = createServer((socket) => {
    const connection = new Connection(socket, services, log);
    connections.add(connection);
    socket.once('close', () => connections.delete(connection));
  });
  server.maxConnections = maxConnections;
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  await chmod(socketPath, 0o600);
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      await Promise.all([...connections].map((connection) => connection.close()));
      await rm(socketPath, { force: true });
    },
  };
}

class Connection {
  readonly #socket: Socket;
  readonly #services: Services;
  readonly #log: Log;
  readonly #reader = new FrameReader();
  readonly #closing = new AbortController();
  readonly #calls = new Set<number>();

  constructor(socket: Socket, services: Services, log: Log) {
    this.#socket = socket;
    this.#services = services;
    this.#log = log;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error) => log.debug('shim connection failed', { why: messageOf(error) }));
    socket.once('close', () => this.#closing.abort(new PodvmError('cancelled', 'the caller disconnected')));
  }

  async close(): Promise<void> {
    this.#closing.abort(new PodvmError('unavailable', 'podvm is stopping'));
    const closed = once(this.#socket, 'close').catch(() => undefined);
    if (this.#socket.destroyed) return;
    setImmediate(() => this.#socket.end()); // after the answers of the calls that were cancelled
    const late = setTimeout(() => this.#socket.destroy(), closeTimeoutMs);
    await closed;
    clearTimeout(late);
  }

  #read(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.read(chunk)) this.#take(frame);
    } catch (error) {
      this.#log.warn('shim connection ended', { why: messageOf(error) });
      this.#socket.destroy();
    }
  }

  #take({ streamId, type, payload }: Frame): void {
    if (type !== frameTypes.request || this.#calls.has(streamId)) {
      throw new PodvmError('corrupt', `Cannot take a ttrpc frame of type ${type} on stream ${streamId}`);
    }
    if (this.#calls.size >= maxCalls) {
      this.#send(streamId, new PodvmError('exhausted', `Cannot answer more than ${maxCalls} calls at a time`));
      return;
    }
    this.#calls.add(streamId);
    this.#answer(payload)
      .then(
        (answer) => this.#send(streamId, answer),
        (error: unknown) => this.#send(streamId, error),
      )
      .catch((error: unknown) => this.#log.error('shim answer not sent', error))
      .finally(() => this.#calls.delete(streamId));
  }

  async #answer(payload: Uint8Array): Promise<Uint8Array> {
    const { service, method, payload: body, timeoutNano, metadata } = messageIn(payload);
    const handler = this.#services.get(service)?.get(method);
    if (handler === undefined) {
      throw new PodvmError('unsupported', `Cannot answer ${printable(service, 100)}/${printable(method, 100)}`);
    }
    const startedAt = performance.now();
    const answer = async () => {
      if (timeoutNano <= 0n) return await handler(body, this.#closing.signal);
      const ms = timeoutNano / nanosPerMs;
      using deadline = openDeadline(Number(ms < maxTimerMs ? ms : maxTimerMs), this.#closing.signal);
      return await handler(body, deadline.signal);
    };
    const request = requestIdOf(metadata.find(({ key }) => key === traceHeader)?.value);
    try {
      return await asRequest(request, answer);
    } catch (error) {
      this.#tell(method, request, error);
      throw error;
    } finally {
      this.#log.debug('answered', { verb: method, request, ms: Math.round(performance.now() - startedAt) });
    }
  }

  #tell(verb: string, request: string, error: unknown): void {
    const kind = kindOf(error);
    if (kind === 'internal' || kind === 'corrupt') this.#log.error('verb failed', error, { verb, request });
    else if (kind !== 'cancelled') {
      // Containerd also sends requests for tasks that it knows to have ended.
      const level = kind === 'notFound' ? 'debug' : 'info';
      this.#log[level]('verb refused', { verb, request, kind, err: statusOf(error).details });
    }
  }

  /** Sends an answer, or an error as its status. */
  #send(streamId: number, answer: unknown): void {
    if (this.#socket.destroyed) return;
    const response =
      answer instanceof Uint8Array
        ? { status: { code: 0 }, payload: answer }
        : { status: { code: statusOf(answer).code, message: statusOf(answer).details } };
    const payload = toBinary(ResponseSchema, create(ResponseSchema, response));
    this.#socket.write(encodeFrame({ streamId, type: frameTypes.response, payload }));
    if (this.#socket.writableLength > maxUnreadBytes) this.#socket.destroy();
  }
}

/** Errors: `invalid`. */
function messageIn(payload: Uint8Array): Request {
  try {
    return fromBinary(RequestSchema, payload);
  } catch (cause) {
    throw new PodvmError('invalid', 'Cannot read a ttrpc request: it is not valid', { cause });
  }
}
