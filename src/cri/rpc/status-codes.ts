import { status } from '@grpc/grpc-js';
import { kindOf, messageOf, PodvmError, type ErrorKind } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** gRPC's status code of each kind of error, one to one. */
export const codeOfKind = {
  invalid: status.INVALID_ARGUMENT,
  notFound: status.NOT_FOUND,
  alreadyExists: status.ALREADY_EXISTS,
  busy: status.ABORTED,
  failedPrecondition: status.FAILED_PRECONDITION,
  denied: status.PERMISSION_DENIED,
  exhausted: status.RESOURCE_EXHAUSTED,
  timeout: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  unavailable: status.UNAVAILABLE,
  unsupported: status.UNIMPLEMENTED,
  corrupt: status.DATA_LOSS,
  internal: status.INTERNAL,
} as const satisfies Record<ErrorKind, number>;

/** Limit of the details: a status is sent in a header, and clients limit headers (grpc-go: 16 KiB in total). */
const maxDetailsChars = 2048;

/** Returns the status for the caller: the reasons and the fix. */
export function statusOf(error: unknown): { readonly code: number; readonly details: string } {
  const fix = error instanceof PodvmError && error.fix !== undefined ? `. ${error.fix}` : '';
  return { code: codeOfKind[kindOf(error)], details: printable(`${messageOf(error)}${fix}`, maxDetailsChars) };
}
