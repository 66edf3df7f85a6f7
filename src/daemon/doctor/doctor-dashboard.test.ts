import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { dashboardFindings } from './doctor-dashboard.ts';

test('doctor says whether the daemon serves its dashboard, or another program has the port', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-doctor-'));
  const socketPath = join(directory, 'podvm.sock');
  const server = createServer(({ headers }, response) => {
    response.writeHead(headers.authorization === 'Bearer right' ? 200 : 403).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  assert.ok(typeof bound === 'object' && bound !== null);
  const { port } = bound;
  const told = async (dashboardPort: number | undefined) =>
    (await dashboardFindings({ dashboardPort, socketPath })).map(({ status, detail }) => `${status}: ${detail}`);
  const write = (token: string) =>
    writeFile(join(directory, 'dashboard.url'), `http://127.0.0.1:${port}/#token=${token}\n`);
  const taken = `warn: another program listens on 127.0.0.1 port ${port}, so the daemon does not serve the dashboard`;

  assert.deepEqual(await told(undefined), []);
  assert.deepEqual(await told(port), [taken]);
  await write('right');
  assert.deepEqual(await told(port), [`ok: served on 127.0.0.1:${port}`]);
  await write('of-a-killed-daemon');
  assert.deepEqual(await told(port), [taken]);
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
  assert.deepEqual(await told(1), ['skip: no daemon serves it']); // a port that no test gets
  await rm(directory, { recursive: true });
});
