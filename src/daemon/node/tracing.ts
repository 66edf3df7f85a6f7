import type { Log } from '#host/log/log.ts';
import { type OpenSpan, type SpanStart, traceWith } from '#host/log/tracing.ts';
import { within } from '#host/wait.ts';

/** Spans that wait for the collector; later ones are dropped. */
const maxQueued = 2048;
/** Longest message or attribute of a span, in UTF-16 units: messages may quote guests and registries. */
const maxTextLength = 1024;
const everyMs = 2_000;
const timeoutMs = 5_000;
/** Time for the last spans to leave when this process ends, in `ms`. */
const farewellMs = 1_000;

/**
 * Sends the spans of this process to an OpenTelemetry collector over HTTP, in batches from a bounded queue. One that cannot be
 * reached costs the spans, and nothing else. The libraries are only loaded here.
 */
export async function openTracing(collector: string, version: string, log: Log): Promise<AsyncDisposable> {
  const [api, { BatchSpanProcessor, TracerProvider }, { OTLPTraceExporter }, { resourceFromAttributes }] =
    await Promise.all([
      import('@opentelemetry/api'),
      import('@opentelemetry/sdk-trace'),
      import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
    ]);
  const exporter = new OTLPTraceExporter({ url: `${collector}/v1/traces`, timeoutMillis: timeoutMs });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'podvm', 'service.version': version }),
    spanLimits: { attributeValueLengthLimit: maxTextLength },
    spanProcessors: [
      new BatchSpanProcessor({
        exporter,
        maxQueueSize: maxQueued,
        scheduledDelayMillis: everyMs,
        exportTimeoutMillis: timeoutMs,
      }),
    ],
  });
  const tracer = provider.getTracer('podvm', version);
  const begin = ({ name, parent, isServer, atMs: startTime, attributes }: SpanStart): OpenSpan => {
    const kind = isServer ? api.SpanKind.SERVER : api.SpanKind.INTERNAL;
    const traceFlags = parent?.isSampled === false ? api.TraceFlags.NONE : api.TraceFlags.SAMPLED;
    const context =
      parent === undefined ? api.ROOT_CONTEXT : api.trace.setSpanContext(api.ROOT_CONTEXT, { ...parent, traceFlags });
    const span = tracer.startSpan(name, { kind, startTime, attributes }, context);
    const { traceId, spanId, traceFlags: flags } = span.spanContext();
    return {
      context: { traceId, spanId, isSampled: (flags & api.TraceFlags.SAMPLED) !== 0 },
      end(endTime, error) {
        if (error !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: boundedText(error) });
        span.end(endTime);
      },
    };
  };
  const tracing = traceWith({ begin });
  log.info('traces are sent', { collector });
  return {
    async [Symbol.asyncDispose]() {
      tracing[Symbol.dispose]();
      await within(provider.shutdown(), { ms: farewellMs }).catch(() => undefined);
    },
  };
}

const boundedText = (text: string): string =>
  text.length <= maxTextLength ? text : `${text.slice(0, maxTextLength - 1).toWellFormed()}…`;
