import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { WebSocketServer } from 'ws';
import { ClientTunnel } from './client-tunnel.ts';

test('a server of the library `ws` reads each write of a tunnel as one message, and the tunnel reads its answers', async () => {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => 'tunnel' });
  await once(server, 'listening');
  const lengths: number[] = [];
  const closed = Promise.withResolvers<number>();
  server.on('connection', (socket) => {
    socket.on('message', (data: Buffer, isBinary) => {
      assert.equal(isBinary, true);
      lengths.push(data.length);
      socket.send(data);
    });
    socket.once('close', (code) => closed.resolve(code));
  });
  const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
  const tunnel = await ClientTunnel.connect(`http://127.0.0.1:${port}/`, 'tunnel');
  const sent = [1, 125, 126, 65_535, 65_536, 300_000].map((length) => Buffer.alloc(length, length % 251));
  for (const bytes of sent) tunnel.write(bytes);
  tunnel.end();
  const received = Buffer.concat(await Array.fromAsync(tunnel as AsyncIterable<Buffer>));
  assert.ok(received.equals(Buffer.concat(sent)));
  assert.deepEqual(
    lengths,
    sent.map(({ length }) => length),
  );
  assert.equal(await closed.promise, 1000);
  server.close();
});
