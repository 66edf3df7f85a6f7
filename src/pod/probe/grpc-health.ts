import { once } from 'node:events';
import { type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import type { Duplex } from 'node:stream';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/**
 * Calls `grpc.health.v1.Health/Check` once on an existing connection, which `@grpc/grpc-js` does not accept. Uses
 * HTTP/2 without TLS, as kubelets do. Source: grpc's doc/health-checking.md and PROTOCOL-HTTP2.md.
 */
export interface HealthRequest {
  readonly authority: string;
  /** Name of the service; "" is the whole server. */
  readonly service: string;
}

/** Limit of the response in bytes; a health service sends a few. */
const maxAnswerBytes = 4096;
/** Names of HealthCheckResponse.ServingStatus. */
const statuses = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
const unimplemented = '12';

/**
 * Performs the call; owns the connection, and closes it. Errors: `unavailable`, `corrupt`, those of HTTP/2; an abort of
 * `signal`.
 */
export async function grpcHealth(
  socket: Duplex,
  { authority, service }: HealthRequest,
  signal: AbortSignal,
): Promise<{ readonly isSuccess: boolean; readonly message: string }> {
  const session = connect(`http://${authority}`, { createConnection: () => socket, settings: { enablePush: false } });
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {}); // reported by the race below
  session.on('error', (error) => failed.reject(error));
  socket.on('error', (error) => failed.reject(error));
  session.on('close', () => failed.reject(new PodvmError('unavailable', 'the server closed the connection')));
  const abort = () => failed.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([failed.promise, ask(session, service)]);
  } finally {
    signal.removeEventListener('abort', abort);
    session.destroy();
    socket.destroy();
  }
}

async function ask(session: ReturnType<typeof connect>, service: string) {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/grpc.health.v1.Health/Check',
    'content-type': 'application/grpc',
    'user-agent': 'podvm-probe/1',
    te: 'trailers',
  });
  const trailers = trailersOf(stream);
  const message = new BinaryWriter().uint32(0o12).string(service).finish(); // field 1, a string
  const head = Buffer.alloc(5); // not compressed
  head.writeUInt32BE(message.length, 1);
  stream.end(Buffer.concat([head, message]));
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders & { readonly ':status'?: number }];
  const answer: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) throw new PodvmError('corrupt', `the answer has more than ${maxAnswerBytes} bytes`);
    answer.push(chunk);
  }
  if (headers[':status'] !== 200) return failure(`gRPC probe was answered with HTTP ${headers[':status']}`);
  const end = headers['grpc-status'] === undefined ? trailers() : headers;
  const code = String(end['grpc-status']);
  if (code === unimplemented) return failure('the server does not implement grpc.health.v1.Health');
  if (code !== '0') return failure(`gRPC probe was answered with code ${code}: ${wordsOf(end['grpc-message'])}`);
  const status = statusOf(Buffer.concat(answer));
  const name = statuses[status] ?? String(status);
  return name === 'SERVING' ? { isSuccess: true, message: 'gRPC probe: SERVING' } : failure(`gRPC probe: ${name}`);
}

/** Collects trailers, which arrive before the stream's end. */
function trailersOf(stream: ClientHttp2Stream): () => IncomingHttpHeaders {
  let trailers: IncomingHttpHeaders = {};
  stream.on('trailers', (headers) => (trailers = headers));
  return () => trailers;
}

/** Decodes percent-encoded text (PROTOCOL-HTTP2.md); returns other text unchanged. */
function wordsOf(message: string | readonly string[] | undefined): string {
  const text = String(message ?? '');
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // for display only
  }
}

function failure(message: string) {
  return { isSuccess: false, message: printable(message) };
}

/** Returns `status` of a HealthCheckResponse, field 1; 0 if absent. */
function statusOf(frame: Buffer): number {
  if (frame.length < 5 || frame[0] !== 0 || frame.readUInt32BE(1) !== frame.length - 5) {
    throw new PodvmError('corrupt', 'the answer is not a gRPC message');
  }
  const reader = new BinaryReader(frame.subarray(5));
  let status = 0;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.Varint) status = reader.int32();
    else reader.skip(type, field);
  }
  return status;
}
