import { PodvmError } from '#base/errors.ts';

/** Reasons in GOAWAY (draft 3.1, section 2.6.6). */
export const goAway = { ok: 0, protocolError: 1, internalError: 2 } as const;

/** Reasons in RST_STREAM (section 2.6.3). */
export const reset = { protocolError: 1, refused: 3, cancel: 5, internalError: 6, flowControl: 7, closed: 9 } as const;

/** The peer broke the rules in a way after which its bytes mean nothing any more: the session ends. */
export function brokenRule(what: string): PodvmError {
  return new PodvmError('invalid', `Cannot go on with a SPDY session: ${what}`);
}
