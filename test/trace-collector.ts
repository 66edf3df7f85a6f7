import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';

const span = v.object({
  traceId: v.string(),
  spanId: v.string(),
  parentSpanId: v.optional(v.string()),
  name: v.string(),
  kind: v.number(),
  startTimeUnixNano: v.pipe(v.union([v.string(), v.number()]), v.transform(Number)),
  endTimeUnixNano: v.pipe(v.union([v.string(), v.number()]), v.transform(Number)),
  attributes: v.optional(v.array(v.object({ key: v.string(), value: v.looseObject({}) })), []),
  status: v.object({ code: v.optional(v.number()), message: v.optional(v.string()) }),
});
export type ReceivedSpan = v.InferOutput<typeof span>;

const requestSchema = v.object({
  resourceSpans: v.array(v.object({ scopeSpans: v.array(v.object({ spans: v.array(span) })) })),
});

/** A collector of OpenTelemetry that keeps the spans it receives as JSON over HTTP. */
export async function openCollector() {
  const spans: ReceivedSpan[] = [];
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      if (request.url !== '/v1/traces') return void response.writeHead(404).end();
      const { resourceSpans } = v.parse(requestSchema, JSON.parse(body));
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('not listening on TCP');
  return {
    url: `http://127.0.0.1:${address.port}`,
    spans,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
