import { type ErrorKind, PodvmError, kindOf, messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ErrorBody } from '#api/pods.ts';
import { fixOf } from '#host/advice.ts';

/** HTTP status of each kind of error. */
export const statusOfKind = {
  invalid: 400,
  denied: 403,
  notFound: 404,
  alreadyExists: 409,
  busy: 409,
  failedPrecondition: 412,
  exhausted: 507,
  timeout: 504,
  cancelled: 499,
  unavailable: 503,
  unsupported: 501,
  corrupt: 500,
  internal: 500,
} as const satisfies Record<ErrorKind, number>;

export function errorBodyOf(error: unknown): ErrorBody {
  const fix = fixOf(error);
  const tail = error instanceof PodvmError ? error.tail.map((line) => printable(line)) : [];
  return { kind: kindOf(error), message: messageOf(error), ...(fix === undefined ? {} : { fix }), tail };
}
