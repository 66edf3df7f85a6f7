import { randomBytes } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { RelayRequest } from './relay.ts';
import type { AttachStreamRequest, ExecStreamRequest, PortForwardStreamRequest } from './streaming.ts';

/** The request of a token; `kind` is the first part of its URL's path. */
export type StreamRequest =
  | ({ readonly kind: 'exec' } & ExecStreamRequest)
  | ({ readonly kind: 'attach' } & AttachStreamRequest)
  | ({ readonly kind: 'portforward' } & PortForwardStreamRequest)
  | ({ readonly kind: 'relay' } & RelayRequest);

export const tokenBytes = 32;
export const tokenLifeMs = 60_000;
export const maxWaitingTokens = 1000;

/** Requests that wait for their client, each under a random token that works once, within a minute. */
export class Tokens {
  readonly #clock: Clock;
  /** Requests in the order of creation, which is that of their expiry. */
  readonly #waiting = new Map<string, { readonly request: StreamRequest; readonly endsAt: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Issues a token. Errors: `exhausted`. */
  issue(request: StreamRequest): string {
    this.#forgetOld();
    if (this.#waiting.size >= maxWaitingTokens) {
      throw new PodvmError(
        'exhausted',
        `Cannot open a stream: the limit of ${maxWaitingTokens} unused URLs is reached`,
        {
          fix: `Open the URLs, or wait: each expires after ${tokenLifeMs / 1000} s.`,
        },
      );
    }
    const token = randomBytes(tokenBytes).toString('base64url');
    this.#waiting.set(token, { request, endsAt: this.#clock.monotonicMs() + tokenLifeMs });
    return token;
  }

  /** Returns the request of a token, which is not redeemed yet. */
  look(token: string): StreamRequest | undefined {
    this.#forgetOld();
    return this.#waiting.get(token)?.request;
  }

  /** Invalidates the token. */
  redeem(token: string): void {
    this.#waiting.delete(token);
  }

  #forgetOld(): void {
    const now = this.#clock.monotonicMs();
    for (const [token, { endsAt }] of this.#waiting) {
      if (endsAt > now) return;
      this.#waiting.delete(token);
    }
  }
}
