import { IdleWatch } from './idle.ts';
import type { SessionParts } from './session-parts.ts';

/** Signals the end of one session: its client is gone, was idle for too long, or the server closes. */
export class SessionWatch implements Disposable {
  readonly #controller = new AbortController();
  readonly #idle: IdleWatch;
  readonly #closing: AbortSignal;
  readonly #leave: () => void;

  /** `onEnd` is called once, when the server has to disconnect the client. */
  constructor(parts: SessionParts, onEnd: () => void) {
    this.#leave = () => {
      if (this.signal.aborted) return;
      this.gone();
      onEnd();
    };
    this.#idle = new IdleWatch(parts.clock, parts.idleMs, () => {
      parts.log.info('a streaming client was idle for too long', { idleMs: parts.idleMs });
      this.#leave();
    });
    this.#closing = parts.closing;
    this.#closing.addEventListener('abort', this.#leave, { once: true });
    if (this.#closing.aborted) this.#leave();
  }

  /** Aborts when the session has no client any more. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  touch(): void {
    this.#idle.touch();
  }

  gone(): void {
    this.#controller.abort();
  }

  [Symbol.dispose](): void {
    this.#idle[Symbol.dispose]();
    this.#closing.removeEventListener('abort', this.#leave);
  }
}
