import { AsyncLocalStorage } from 'node:async_hooks';

/** Place of a span in a trace, as in W3C's Trace Context. */
export interface SpanContext {
  /** 32 and 16 hexadecimal digits. */
  readonly traceId: string;
  readonly spanId: string;
  readonly isSampled: boolean;
}

/** A span that goes on. */
export interface OpenSpan {
  readonly context: SpanContext;
  /** `error`: why the work failed. */
  end(atMs: number, error?: string): void;
}

export interface SpanStart {
  readonly name: string;
  /** Absent: the span begins a trace. */
  readonly parent?: SpanContext | undefined;
  /** The work was asked for over the network. */
  readonly isServer: boolean;
  /** Time since the epoch. */
  readonly atMs: number;
  readonly attributes: Readonly<Record<string, string>>;
}

/** Receives the spans of this process. Must be fast, and must not throw. */
export interface Tracer {
  begin(start: SpanStart): OpenSpan;
}

const spans = new AsyncLocalStorage<SpanContext>();
let tracer: Tracer | undefined;

/** Traces with it until the result is disposed of. Without a tracer, `traced` only does the work. */
export function traceWith(wanted: Tracer): Disposable {
  tracer = wanted;
  return { [Symbol.dispose]: () => (tracer = undefined) };
}

interface Traced {
  readonly name: string;
  readonly attributes?: Readonly<Record<string, string>>;
  /** Of a caller in another process; default: the span of the running code. */
  readonly caller?: SpanContext | undefined;
  readonly isServer?: boolean;
}

/** Does the work in a span, which is the parent of those that the work makes. */
export async function traced<T>(what: Traced, work: () => Promise<T>): Promise<T> {
  if (tracer === undefined) return await work();
  const { name, attributes = {}, caller, isServer = false } = what;
  const span = tracer.begin({ name, attributes, isServer, parent: caller ?? spans.getStore(), atMs: Date.now() });
  try {
    const result = await spans.run(span.context, work);
    span.end(Date.now());
    return result;
  } catch (error) {
    span.end(Date.now(), error instanceof Error ? error.message : String(error));
    throw error;
  }
}

/** Tells of work that was done and timed: `ms` until `endedMs` ago. Undefined outside of a traced work. */
export function stepRecorder(): ((name: string, ms: number, endedMs?: number) => void) | undefined {
  const parent = spans.getStore();
  if (tracer === undefined || parent === undefined) return undefined;
  const wanted = tracer;
  return (name, ms, endedMs = 0) => {
    const endMs = Date.now() - endedMs;
    wanted.begin({ name, parent, isServer: false, atMs: endMs - ms, attributes: {} }).end(endMs);
  };
}

/** `traceparent` of W3C: version, trace, parent, flags. Zeros are invalid. */
const traceparent = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|$)/;

/** Parses the header of a caller that traces; undefined for anything else. */
export function spanContextOf(header: unknown): SpanContext | undefined {
  const [, traceId, spanId, flags = ''] = traceparent.exec(typeof header === 'string' ? header : '') ?? [];
  if (traceId === undefined || spanId === undefined) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}
