import type { Writable } from 'node:stream';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';

/**
 * The *streaming server* carries exec, attach and port-forward, which do not fit into a gRPC answer. A verb requests a
 * URL; the client that opens it, once and within a minute, gets the stream over SPDY/3.1 or WebSocket. The server knows
 * neither gRPC nor containers: each request has the *target* on which it acts.
 *
 * Disposing refuses new clients, ends every session as if its client had disconnected, and waits for their end.
 */
export interface StreamingServer extends AsyncDisposable {
  /** `http://<address>:<port>`, with the actual port. */
  readonly baseUrl: string;
  /**
   * Returns a URL. Errors of all three functions: `invalid` for an invalid choice of streams, `exhausted` when too many
   * URLs are unused.
   */
  execUrl(request: ExecStreamRequest): string;
  attachUrl(request: AttachStreamRequest): string;
  portForwardUrl(request: PortForwardStreamRequest): string;
  /**
   * Returns a URL for a port-forward that the server of another runtime serves at `url`, over SPDY or the older protocols
   * of WebSocket: this server adds SPDY in WebSocket messages. A URL that is not `http:` is returned as it is.
   */
  relayedPortForwardUrl(url: string): string;
}

/** Streams for the client to open. CRI's rules: at least one, and no stderr with a tty. */
export interface StreamChoice {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface ExecStreamRequest extends StreamChoice {
  /**
   * Implemented by a container. Called when the client has connected; a failure is sent to the client in the stream.
   */
  readonly target: Pick<Container, 'exec'>;
  readonly command: readonly string[];
}

export interface AttachStreamRequest extends StreamChoice {
  readonly target: AttachTarget;
}

export interface PortForwardStreamRequest {
  /** Implemented by a sandbox. Called once per connection without an address: 127.0.0.1 in the pod. */
  readonly target: Pick<Sandbox, 'dial'>;
  /** Ports of the request, which count only for a client whose protocol cannot name any itself. */
  readonly ports: readonly number[];
}

/** A running container to attach to. */
export interface AttachTarget {
  /** Attaches. Errors are sent to the client; `failedPrecondition` when the container does not run. */
  attach(signal: AbortSignal): Promise<Attachment>;
}

/** One client's access to the input and output of a container. */
export interface Attachment {
  /** The container's own standard input, shared by clients; absent if it was made without one. */
  readonly stdin?: Writable;
  /** Whether the container's input ends with its first client's: the server then ends `stdin` (never with a tty). */
  readonly stdinOnce: boolean;
  readonly follow: Container['follow'];
  /** Resizes the terminal; does nothing without a tty. */
  resize(columns: number, rows: number): Promise<void>;
  /** Called exactly once, last, when the client is done. The container continues. */
  detach(): void;
}
