import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { outliveAcceptErrors } from './accept-errors.ts';

test('a server continues after an error of accept()', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  outliveAcceptErrors(server);
  for (let round = 0; round < 2; round += 1) server.emit('error', new Error('accept ENOMEM'));
  assert.ok(server.listening);
  server.close();
});
