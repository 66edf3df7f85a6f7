import * as v from 'valibot';
import { errorBodySchema } from '#api/pods.ts';
import { tokenOf } from './token.ts';

/** A call that failed: what failed and why, and the action to take. */
export class CallError extends Error {
  override readonly name = 'CallError';
  readonly kind: string;
  readonly fix: string | undefined;

  constructor(kind: string, message: string, fix?: string) {
    super(message);
    this.kind = kind;
    this.fix = fix;
  }
}

/** Calls the admin API, and parses the answer. Errors: CallError. */
export async function call<S extends v.GenericSchema>(
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  schema: S,
  { body, signal }: { readonly body?: unknown; readonly signal?: AbortSignal } = {},
): Promise<v.InferOutput<S>> {
  const response = await send(method, path, { body, signal });
  const parsed = v.safeParse(schema, await response.json());
  if (parsed.success) return parsed.output;
  throw new CallError('internal', 'Cannot read the answer of podvm', 'Start `podvm dashboard` again after an upgrade.');
}

/** Gets text. Errors: CallError. */
export const getText = async (path: string, signal: AbortSignal): Promise<string> =>
  await (await send('GET', path, { signal })).text();

/** Yields the parts of an answer as text, as they come. Errors: CallError. */
export async function* streamText(path: string, signal: AbortSignal): AsyncGenerator<string> {
  const { body } = await send('GET', path, { signal });
  if (body === null) return;
  const decoder = new TextDecoder();
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((cause: unknown) => {
      if (signal.aborted) throw cause;
      throw new CallError('unavailable', 'The node has cut the connection', 'It is read again when the node answers.');
    });
    if (done) return;
    yield decoder.decode(value, { stream: true });
  }
}

/** Opens a WebSocket of the admin API. */
export function openSocket(path: string): WebSocket {
  const url = new URL(path, location.href);
  url.protocol = 'ws:';
  const socket = new WebSocket(url, ['podvm.dev', `podvm.dev.token.${tokenOf(localStorage)}`]);
  socket.binaryType = 'arraybuffer';
  return socket;
}

async function send(
  method: string,
  path: string,
  { body, signal }: { readonly body?: unknown; readonly signal?: AbortSignal | undefined },
): Promise<Response> {
  const response = await fetch(path, {
    method,
    headers: {
      authorization: `Bearer ${tokenOf(localStorage)}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    body: body === undefined ? null : JSON.stringify(body),
    signal: signal ?? null,
  }).catch((cause: unknown) => {
    if (signal?.aborted === true) throw cause;
    throw new CallError('unavailable', '`podvm dashboard` does not answer', 'Start it again.');
  });
  if (response.ok) return response;
  const told = v.safeParse(errorBodySchema, await response.json().catch(() => undefined));
  if (!told.success) throw new CallError('internal', `Cannot read the answer of podvm: status ${response.status}`);
  throw new CallError(told.output.kind, told.output.message, told.output.fix);
}
