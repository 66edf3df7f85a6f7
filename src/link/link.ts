import type { Duplex } from 'node:stream';
import type { AgentEvent, Method, Params, Result, Welcome } from '#wire/messages.ts';

/**
 * The host's end of the channel to one agent. Everything that comes out of it was said by the guest: bounded and
 * checked against the wire's schemas, but never to be trusted.
 */
export interface Link extends AsyncDisposable {
  /** What the agent said of itself in the handshake: versions, boot phases. */
  readonly welcome: Welcome;
  /** Calls one method of the agent. Errors: the agent's own kind, `unavailable` when the link is down, `timeout`. */
  call<M extends Method>(method: M, params: Params<M>, signal: AbortSignal): Promise<Result<M>>;
  /**
   * Opens a byte stream with credit-based flow control, to be named in a call (`stdout: stream.id`). Readable side:
   * bytes from the guest; writable side: bytes to it; either half closes on its own. Destroying it resets the stream.
   * `acknowledges`: the guest is granted credit by `acknowledge`, and not when bytes are read, so that it can send again
   * what a reader that died was not done with.
   */
  openStream(options?: { readonly acknowledges?: boolean }): LinkStream;
  /** Events in the order the agent sent them; one handler. */
  onEvent(handler: (event: AgentEvent) => void): void;
  /** Settles once, with the reason, when the link can no longer be used. */
  readonly closed: Promise<Error>;
}

export interface LinkStream extends Duplex {
  /** Stream number on the wire; the agent uses the same. */
  readonly id: number;
  /** The reader has done with so many more bytes. Does nothing to a stream that grants credit when it is read. */
  acknowledge(bytes: number): void;
}

export interface LinkOptions {
  /** Opens the channel; called again when it was torn and the agent may still live. */
  readonly open: (signal: AbortSignal) => Promise<Duplex>;
  /** The agent must answer the hello within this time, in `ms`; the hello is repeated, so a slow boot is no error. */
  readonly handshakeTimeoutMs: number;
  /**
   * A call whose caller has no deadline is given up after so long, in `ms`: longer than any caller waits. A guest that is
   * dead is noticed by pings, whatever waits for it.
   */
  readonly callTimeoutMs: number;
}
