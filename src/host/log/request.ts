import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';

interface Request {
  readonly id: string;
  isOver: boolean;
}

const requests = new AsyncLocalStorage<Request>();

/**
 * Does the work of a client's call, with the call's id in each of its log lines. Work that continues after the call,
 * such as a machine, loses the id when the call ends.
 */
export async function asRequest<T>(id: string, work: () => Promise<T>): Promise<T> {
  const request = { id, isOver: false };
  try {
    return await requests.run(request, work);
  } finally {
    request.isOver = true;
  }
}

/** Id of the call that the running code works for; undefined if it works for none. */
export function currentRequest(): string | undefined {
  const request = requests.getStore();
  return request?.isOver === false ? request.id : undefined;
}

/** Header of W3C's Trace Context, which a kubelet sends when it traces. */
export const traceHeader = 'traceparent';

/** `traceparent` of W3C: version, trace, parent, flags. A trace of zeros is invalid. */
const traceparent = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)/;

/** Returns the trace in the caller's W3C header, so that both logs have the same id; otherwise an id of our own. */
export function requestIdOf(header: unknown): string {
  const [, trace] = traceparent.exec(typeof header === 'string' ? header : '') ?? [];
  return trace ?? randomBytes(8).toString('hex');
}
