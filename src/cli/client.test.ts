import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as v from 'valibot';
import { createServer } from '#host/socket/node-http.ts';
import { createClient } from './client.ts';

test('a call to the admin socket does not examine whether its host is an address', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-client-'));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true }));
  const server = createServer((_, response) => response.end('{"pods":1}')).listen(join(directory, 'socket'));
  undo.defer(async () => {
    server.close();
    await once(server, 'close');
  });
  await once(server, 'listening');
  const examine = t.mock.method(net, 'isIP');
  const client = createClient(join(directory, 'socket'));
  assert.deepEqual(await client.get('/', v.object({ pods: v.number() })), { pods: 1 });
  assert.equal(examine.mock.callCount(), 0);
});
