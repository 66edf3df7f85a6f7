import { kindOf, messageOf, PodvmError, type ErrorKind } from './errors.ts';
import { printable } from './guest-text.ts';

/** The status code of each kind of error, one to one: gRPC's numbers, which ttrpc shares. */
export const codeOfKind = {
  invalid: 3, // INVALID_ARGUMENT
  notFound: 5, // NOT_FOUND
  alreadyExists: 6, // ALREADY_EXISTS
  busy: 10, // ABORTED
  failedPrecondition: 9, // FAILED_PRECONDITION
  denied: 7, // PERMISSION_DENIED
  exhausted: 8, // RESOURCE_EXHAUSTED
  timeout: 4, // DEADLINE_EXCEEDED
  cancelled: 1, // CANCELLED
  unavailable: 14, // UNAVAILABLE
  unsupported: 12, // UNIMPLEMENTED
  corrupt: 15, // DATA_LOSS
  internal: 13, // INTERNAL
} as const satisfies Record<ErrorKind, number>;

/** Codes without a kind of their own: OUT_OF_RANGE and UNAUTHENTICATED. */
const furtherCodes: Readonly<Record<number, ErrorKind>> = { 11: 'invalid', 16: 'denied' };

/** Returns the kind of a status code of another server. UNKNOWN, of most errors of containerd, is `failedPrecondition`. */
export function kindOfCode(code: number): ErrorKind {
  const [kind] = Object.entries(codeOfKind).find(([, ours]) => ours === code) ?? [];
  return (kind as ErrorKind | undefined) ?? furtherCodes[code] ?? 'failedPrecondition'; // SAFE: a key of the table
}

/** Limit of the details: a status is sent in a header, and clients limit headers (grpc-go: 16 KiB in total). */
const maxDetailsChars = 2048;

/** Returns the status for the caller: the reasons and the fix. */
export function statusOf(error: unknown): { readonly code: number; readonly details: string } {
  const fix = error instanceof PodvmError && error.fix !== undefined ? `. ${error.fix}` : '';
  return { code: codeOfKind[kindOf(error)], details: printable(`${messageOf(error)}${fix}`, maxDetailsChars) };
}
