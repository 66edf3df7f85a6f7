import { PodvmError } from '#base/errors.ts';

/** Reasons in GOAWAY (draft 3.1, section 2.6.6). */
export const goAway = { ok: 0, protocolError: 1, internalError: 2 } as const;

/** Reasons in RST_STREAM (section 2.6.3). */
export const reset = { protocolError: 1, refused: 3, cancel: 5, internalError: 6, flowControl: 7, closed: 9 } as const;

/** Error for a protocol violation after which the peer's bytes cannot be interpreted: the session ends. */
export function brokenRule(what: string): PodvmError {
  return new PodvmError('invalid', `Cannot continue the SPDY session: ${what}`);
}
