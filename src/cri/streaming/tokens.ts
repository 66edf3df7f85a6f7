import { randomBytes } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { AttachStreamRequest, ExecStreamRequest, PortForwardStreamRequest } from './streaming.ts';

/** What a token stands for; `kind` is the first part of its URL's path. */
export type StreamRequest =
  | ({ readonly kind: 'exec' } & ExecStreamRequest)
  | ({ readonly kind: 'attach' } & AttachStreamRequest)
  | ({ readonly kind: 'portforward' } & PortForwardStreamRequest);

export const tokenBytes = 32;
export const tokenLifeMs = 60_000;
export const maxWaitingTokens = 1000;

/** Requests that wait for their client, each under a random name that works once and for a minute. */
export class Tokens {
  readonly #clock: Clock;
  /** In the order of their making, which is that of their ends. */
  readonly #waiting = new Map<string, { readonly request: StreamRequest; readonly endsAt: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Errors: `exhausted`. */
  issue(request: StreamRequest): string {
    this.#forgetOld();
    if (this.#waiting.size >= maxWaitingTokens) {
      throw new PodvmError('exhausted', `Cannot open a stream: ${maxWaitingTokens} URLs wait for their clients`, {
        fix: `Open the URLs, or wait: each is forgotten after ${tokenLifeMs / 1000} s.`,
      });
    }
    const token = randomBytes(tokenBytes).toString('base64url');
    this.#waiting.set(token, { request, endsAt: this.#clock.now() + tokenLifeMs });
    return token;
  }

  /** What the token stands for, which may still fail to be opened. */
  look(token: string): StreamRequest | undefined {
    this.#forgetOld();
    return this.#waiting.get(token)?.request;
  }

  /** The token has done its work. */
  redeem(token: string): void {
    this.#waiting.delete(token);
  }

  #forgetOld(): void {
    const now = this.#clock.now();
    for (const [token, { endsAt }] of this.#waiting) {
      if (endsAt > now) return;
      this.#waiting.delete(token);
    }
  }
}
