import { messageOf } from '#base/errors.ts';

/** The part of Kubernetes' v1.Status that ends an exec or attach on its error stream. */
export interface RemoteStatus {
  readonly metadata: Readonly<Record<string, never>>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: 'NonZeroExitCode' | 'InternalError';
  readonly details?: { readonly causes: readonly { readonly reason: 'ExitCode'; readonly message: string }[] };
  readonly code?: number;
}

export const success: RemoteStatus = { metadata: {}, status: 'Success' };

/** Returns the status of an ended process. Clients read the number in `details`. */
export function statusOfExit(exitCode: number): RemoteStatus {
  if (exitCode === 0) return success;
  return {
    metadata: {},
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: ${exitCode}`,
    details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
  };
}

/** Returns the status of a process that could not be started, or of another failure. */
export function statusOfError(error: unknown): RemoteStatus {
  return { metadata: {}, status: 'Failure', reason: 'InternalError', message: messageOf(error), code: 500 };
}

/** Form of a status on the wire: since version 4 of the protocols the JSON, before only the message of a failure. */
export type StatusForm = 'json' | 'message';

export function statusText(status: RemoteStatus, form: StatusForm): string {
  return form === 'json' ? JSON.stringify(status) : (status.message ?? '');
}
