import { Duplex } from 'node:stream';
import * as v from 'valibot';
import { WebSocket } from 'ws';
import { errorBodySchema } from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';

/** A port of a pod, at 127.0.0.1 in it. */
export interface PodPort {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
}

/**
 * Opens one connection to a port of a pod over the admin socket, as `podvm port-forward` does. Errors, by the stream:
 * `unavailable`, with what podvm said.
 */
export function connectPod(socketPath: string, { namespace, name, port }: PodPort): Duplex {
  const path = `/v1/pods/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}/port-forward?port=${port}`;
  return new PodConnection(new WebSocket(`ws+unix://${socketPath}:${path}`, { perMessageDeflate: false }));
}

/** Bytes in both directions at the reader's pace; an empty frame ends a direction. */
class PodConnection extends Duplex {
  readonly #socket: WebSocket;
  readonly #opened: Promise<void>;

  constructor(socket: WebSocket) {
    super();
    this.#socket = socket;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#opened = promise;
    this.#opened.catch(() => undefined); // the stream has the error
    socket.once('open', resolve);
    socket.on('error', (cause) => this.destroy(unreachable(cause.message)));
    socket.once('close', () => {
      reject(new Error('the connection has ended'));
      this.push(null);
      if (!this.writableFinished) this.destroy();
    });
    socket.on('message', (data, isBinary) => {
      const bytes = messageBytes(data);
      if (!isBinary) this.destroy(refusalIn(bytes.toString('utf8')));
      else if (bytes.length === 0) this.push(null);
      else if (!this.push(bytes)) socket.pause();
    });
  }

  override _read(): void {
    if (this.#socket.isPaused) this.#socket.resume();
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#send(Buffer.alloc(0), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.terminate();
    done(error);
  }

  #send(bytes: Buffer, done: (error?: Error | null) => void): void {
    this.#opened.then(
      () => this.#socket.send(bytes, (error) => done(error ?? null)),
      () => done(unreachable('the connection has ended')),
    );
  }
}

function refusalIn(text: string): PodvmError {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), errorBodySchema), text);
  if (!parsed.success) return unreachable('podvm answers with something else');
  const { message, fix } = parsed.output;
  return new PodvmError('unavailable', message, fix === undefined ? {} : { fix });
}

const unreachable = (why: string): PodvmError =>
  new PodvmError('unavailable', `Cannot connect to the pod: ${why}`, {
    fix: 'Look at the state of the pod; `podvm dashboard` reaches pods of the node that serves this state directory.',
  });
