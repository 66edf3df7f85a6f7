import type { Writable } from 'node:stream';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';

/**
 * The *streaming server* carries what does not fit into a gRPC answer: exec, attach and port-forward. A verb asks it
 * for a URL; whoever opens that URL, once and soon, gets the stream, over SPDY/3.1 or over WebSocket. It knows nothing
 * of gRPC and finds no container: each request brings the *target* on which it will act.
 *
 * Disposing refuses new clients, ends every session as if its client had left, and waits until all of them are gone.
 */
export interface StreamingServer extends AsyncDisposable {
  /** `http://<address>:<port>`, with the port that was really taken. */
  readonly baseUrl: string;
  /**
   * Errors of all three: `invalid` for a choice of streams that cannot be, `exhausted` when too many URLs wait for
   * their clients.
   */
  execUrl(request: ExecStreamRequest): string;
  attachUrl(request: AttachStreamRequest): string;
  portForwardUrl(request: PortForwardStreamRequest): string;
}

/** The streams that a client is to open; CRI's rules: at least one of them, and no stderr beside a tty. */
export interface StreamChoice {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface ExecStreamRequest extends StreamChoice {
  /** A container has it. Called when the client is there; a failure is told to the client in the stream. */
  readonly target: Pick<Container, 'exec'>;
  readonly command: readonly string[];
}

export interface AttachStreamRequest extends StreamChoice {
  readonly target: AttachTarget;
}

export interface PortForwardStreamRequest {
  /** A sandbox has it. Called once a connection, with no address: 127.0.0.1 in the pod. */
  readonly target: Pick<Sandbox, 'dial'>;
}

/** A container to which one can attach while it runs. */
export interface AttachTarget {
  /** Errors are told to the client; `failedPrecondition` when the container does not run. */
  attach(signal: AbortSignal): Promise<Attachment>;
}

/** One client's hold on the input and output of a container. */
export interface Attachment {
  /** The container's own standard input, which clients share; absent if it was made without one. */
  readonly stdin?: Writable;
  /** The container's input ends with its first client's: the server then ends `stdin` (never with a tty). */
  readonly stdinOnce: boolean;
  readonly follow: Container['follow'];
  /** Without a tty it does nothing. */
  resize(columns: number, rows: number): Promise<void>;
  /** The client is gone or done: the container runs on. Called exactly once, and last. */
  detach(): void;
}
