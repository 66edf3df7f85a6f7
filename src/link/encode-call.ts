import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { Method } from '#wire/messages.ts';

/** A call as it is sent, in one frame or in parts. Errors: `exhausted`, for more than the agent takes. */
export function encodeCall(id: number, method: Method, params: unknown): Buffer {
  const body = Buffer.from(JSON.stringify({ t: 'call', id, method, params }));
  if (body.length <= limits.maxCallBytes) return body;
  throw new PodvmError(
    'exhausted',
    `Cannot send the machine what it is to do (${method}): it is at most ${limits.maxCallBytes} bytes, got ${body.length}`,
    { fix: 'Put large values into files: a volume of a ConfigMap or Secret, or an image.' },
  );
}
