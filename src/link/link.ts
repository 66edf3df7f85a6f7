import type { Duplex } from 'node:stream';
import type { ProcessPulse } from '#host/process/process-pulse.ts';
import type { AgentEvent, Method, Params, Result, Welcome } from '#wire/messages.ts';
import type { Heartbeat } from './heartbeat.ts';

/**
 * The host's end of the channel to one agent. Everything that it yields was sent by the guest: bounded and checked against
 * the wire's schemas, but never trusted.
 */
export interface Link extends AsyncDisposable {
  /** The agent's description in the handshake: versions, boot phases. */
  readonly welcome: Welcome;
  /** Calls one method of the agent. Errors: the agent's own kind, `unavailable` when the link is down, `timeout`. */
  call<M extends Method>(method: M, params: Params<M>, signal: AbortSignal): Promise<Result<M>>;
  /**
   * Opens a byte stream with credit-based flow control, to be named in a call (`stdout: stream.id`). Readable side: bytes
   * from the guest; writable side: bytes to it; each half closes independently. Destroying it resets the stream.
   * `acknowledges`: the guest gets credit by `acknowledge` instead of by reading, so that it can send again what a reader
   * that died had not finished.
   */
  openStream(options?: { readonly acknowledges?: boolean }): LinkStream;
  /** Registers the one handler of events, called in the order in which the agent sent them. */
  onEvent(handler: (event: AgentEvent) => void): void;
  readonly traffic: LinkTraffic;
  /** While the agent is frozen, calls of it fail with `unavailable`, and its silence means nothing. */
  setFrozen(isFrozen: boolean): void;
  /** Settles once, with the reason, when the link can no longer be used: `timeout` when the guest no longer answers. */
  readonly closed: Promise<Error>;
}

/** Traffic of a link since it was opened. */
export interface LinkTraffic {
  readonly receivedBytes: number;
  readonly sentBytes: number;
  /** Pauses of a guest that took more of this process' time than its share (`turns.ts`). */
  readonly stalls: number;
  readonly stalledSeconds: number;
}

export interface LinkStream extends Duplex {
  /** Number of the stream on the wire, the same for the agent. */
  readonly id: number;
  /** Reports that the reader has finished this many more bytes. No effect on a stream that grants credit by reading. */
  acknowledge(bytes: number): void;
}

export interface LinkOptions {
  /** Opens the channel; called again when it was torn and the agent may still live. */
  readonly open: (signal: AbortSignal) => Promise<Duplex>;
  /** Time in which the agent must answer the hello, in `ms`; the hello is repeated, so a slow boot is no error. */
  readonly handshakeTimeoutMs: number;
  /** True if the agent was up before: the heartbeat then watches it from the start of the handshake. */
  readonly isUp?: boolean;
  /**
   * Timeout of a call whose caller has no deadline, in `ms`: longer than any caller waits. The heartbeat detects a dead
   * guest regardless of it.
   */
  readonly callTimeoutMs: number;
  /** Reads the activity of the process that runs the guest, which tells a hung guest from a busy host. */
  readonly pulse?: () => Promise<ProcessPulse | undefined>;
  /** Default: the heartbeat of this process. */
  readonly heartbeat?: Heartbeat;
}
