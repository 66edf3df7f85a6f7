import { messageOf } from '#base/errors.ts';
import { formatFor, formats } from '#metrics/exposition.ts';
import type { MetricsPage } from '#metrics/metrics-page.ts';
import { sendJson } from '../http.ts';
import type { Call, Routes } from '../routes.ts';

/** Sources of the answers to monitoring. */
export interface MonitoringParts {
  readonly metrics: Pick<MetricsPage, 'write'>;
  /** Reasons why new pods cannot run now; empty if they can. */
  readonly whyNotReady: () => Promise<readonly string[]>;
  /** Versions by name; undefined for parts that set-up has not made. */
  readonly versions: () => Promise<Readonly<Record<string, string | number | undefined>>>;
}

/** Calls of monitoring, on the admin socket and on the address for metrics. */
export function monitoringRoutes({ metrics, whyNotReady, versions }: MonitoringParts): Routes {
  return {
    'GET /metrics': async ({ request, response }) => {
      const format = formatFor(request.headers.accept);
      const text = await metrics.write(format);
      response.writeHead(200, { 'content-type': formats[format] }).end(text);
    },
    /** Any answer shows that the process is alive. */
    'GET /healthz': (call) => sendText(call, 200, 'ok\n'),
    'GET /readyz': async (call) => {
      const why = await whyNotReady().catch((error: unknown) => [messageOf(error)]);
      if (why.length === 0) sendText(call, 200, 'ok\n');
      else sendText(call, 503, `not ready: ${why.join('; ')}\n`);
    },
    'GET /v1/version': async ({ response }) => sendJson(response, 200, await versions()),
  };
}

const sendText = ({ response }: Call, status: number, text: string): void =>
  void response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(text);
