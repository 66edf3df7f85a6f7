import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { MonitoringParts } from './monitoring-routes.ts';
import { serveMonitoring } from './monitoring-server.ts';

const parts: MonitoringParts = {
  metrics: { write: async (format) => `of ${format}\n` },
  versions: async () => ({ podvm: '1.2.3' }),
  whyNotReady: () => Promise.reject(new Error('the network is unknown')),
};

const address = '127.0.0.1';

async function get(port: number, path: string, headers: Record<string, string> = {}) {
  const outgoing = request({ host: address, port, path, headers, agent: false }).end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  return { status: response.statusCode, type: response.headers['content-type'], body: await text(response) };
}

test('the address for metrics serves monitoring in the requested format, and no calls on pods', async () => {
  await using server = await serveMonitoring({ address, port: 0, clients: 'local' }, parts);
  const plain = await get(server.port, '/metrics');
  assert.deepEqual(plain, { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: 'of prometheus\n' });
  const open = await get(server.port, '/metrics', { accept: 'application/openmetrics-text; version=1.0.0' });
  assert.equal(open.body, 'of openMetrics\n');
  assert.match(open.type ?? '', /^application\/openmetrics-text; version=1\.0\.0/);
  const unready = await get(server.port, '/readyz');
  assert.deepEqual([unready.status, unready.body], [503, 'not ready: the network is unknown\n']);
  for (const path of ['/v1/pods', '/v1/node', '/']) assert.equal((await get(server.port, path)).status, 404, path);
});

test('a page of another site cannot read what is served only to the node', async () => {
  await using server = await serveMonitoring({ address, port: 0, clients: 'local' }, parts);
  const status = async (host: string) => (await get(server.port, '/metrics', { host })).status;
  assert.equal(await status('evil.example:80'), 403);
  assert.equal(await status('127.0.0.1.evil.example'), 403);
  for (const host of [`localhost:${server.port}`, `127.0.0.1:${server.port}`, '[::1]:9', '127.0.0.1'])
    assert.equal(await status(host), 200, host);
  await using open = await serveMonitoring({ address, port: 0, clients: 'any' }, parts);
  assert.equal((await get(open.port, '/metrics', { host: 'node7.example' })).status, 200);
});

test('a port in use is refused, with a fix', async () => {
  await using server = await serveMonitoring({ address, port: 0, clients: 'local' }, parts);
  await assert.rejects(serveMonitoring({ address, port: server.port, clients: 'local' }, parts), { kind: 'busy' });
});
