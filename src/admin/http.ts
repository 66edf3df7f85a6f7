import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import * as v from 'valibot';
import { PodvmError, kindOf } from '#base/errors.ts';
import { errorBodyOf, statusOfKind } from './error-body.ts';

/** Largest request body, in bytes. */
const maxBodyBytes = 64 * 1024;

export async function readJson<S extends v.GenericSchema>(
  request: IncomingMessage,
  schema: S,
): Promise<v.InferOutput<S>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes)
      throw new PodvmError('invalid', `Cannot read the request: the body must have at most ${maxBodyBytes} bytes`);
    chunks.push(chunk);
  }
  return parseJson(Buffer.concat(chunks).toString('utf8') || '{}', schema);
}

export function parseJson<S extends v.GenericSchema>(text: string, schema: S): v.InferOutput<S> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PodvmError('invalid', 'Cannot read the request: the body is not JSON', { cause });
  }
  const result = v.safeParse(schema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new PodvmError('invalid', `Cannot read the request: ${v.getDotPath(issue) ?? 'body'}: ${issue.message}`);
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

export function sendError(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy(); // an incomplete stream is cut, not ended, so that the client detects it
    return;
  }
  sendJson(response, statusOfKind[kindOf(error)], errorBodyOf(error));
}

/** Sends `chunks` at the client's pace. */
export async function sendStream(
  response: ServerResponse,
  type: string,
  chunks: AsyncIterable<Uint8Array | string>,
  signal: AbortSignal,
): Promise<void> {
  for await (const chunk of chunks) {
    if (signal.aborted) return;
    if (!response.headersSent) response.writeHead(200, { 'content-type': type });
    if (!response.write(chunk)) await once(response, 'drain', { signal }).catch(() => undefined);
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': type });
  response.end();
}
