import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { Method } from '#wire/messages.ts';

/** Encodes a call, for one frame or several parts. Errors: `exhausted` when it is larger than the agent accepts. */
export function encodeCall(id: number, method: Method, params: unknown, request?: string): Buffer {
  const body = Buffer.from(JSON.stringify({ t: 'call', id, method, params, request }));
  if (body.length <= limits.maxCallBytes) return body;
  throw new PodvmError(
    'exhausted',
    `Cannot send ${method} to the machine: expected at most ${limits.maxCallBytes} bytes, got ${body.length}`,
    { fix: 'Put large values into files: a volume of a ConfigMap or Secret, or an image.' },
  );
}
