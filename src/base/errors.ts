import type { GuestText } from './guest-text.ts';

/**
 * The one error class. `kind` classifies the failure for a caller, the message names exactly the failure, and `fix` is
 * the action for an operator.
 */
export const errorKinds = [
  'invalid', // the caller's input is wrong
  'notFound',
  'alreadyExists',
  'busy', // currently in use
  'failedPrecondition', // the state does not allow it
  'denied', // permission
  'exhausted', // a limit or a resource ran out
  'timeout',
  'cancelled',
  'unavailable', // a needed part does not answer; trying again may help
  'unsupported',
  'corrupt', // data that fails its check
  'internal', // a bug in podvm
] as const;

export type ErrorKind = (typeof errorKinds)[number];

export interface ErrorDetails {
  readonly cause?: unknown;
  /** Action for the operator, as one sentence. */
  readonly fix?: string;
  /** The last lines of output of the child process or the guest. */
  readonly tail?: readonly GuestText[];
}

/** Message form: "Cannot <verb> <what>: <reason>, got <value>". */
export class PodvmError extends Error {
  override readonly name = 'PodvmError';
  readonly kind: ErrorKind;
  readonly fix: string | undefined;
  readonly tail: readonly GuestText[];

  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.fix = details.fix;
    this.tail = details.tail ?? [];
  }
}

const usedUp: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM']);

/**
 * The kind of any thrown value: its own for a PodvmError, `cancelled` or `timeout` for an abort, `exhausted` for a full
 * disk and when descriptors or memory run out, otherwise `internal`.
 */
export function kindOf(error: unknown): ErrorKind {
  if (error instanceof PodvmError) return error.kind;
  if (error instanceof Error && error.name === 'AbortError') return 'cancelled';
  if (error instanceof Error && error.name === 'TimeoutError') return 'timeout';
  if (error instanceof Error && 'code' in error && usedUp.has(error.code)) return 'exhausted';
  return 'internal';
}

/** The message of any thrown value, with the messages of its causes, as one line. */
export function messageOf(error: unknown): string {
  const parts: string[] = [];
  for (let e: unknown = error, depth = 0; e !== undefined && depth < 8; depth += 1) {
    const text = e instanceof Error ? e.message : typeof e === 'string' ? e : `thrown ${typeof e}`;
    if (!parts.some((part) => part.includes(text))) parts.push(text);
    e = e instanceof Error ? e.cause : undefined;
  }
  return parts.join(': ');
}
