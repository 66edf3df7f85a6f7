import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { listenUdp } from './udp-forward.ts';

test('a datagram for a pod that cannot be reached is dropped, and later ones arrive', { timeout: 60_000 }, async () => {
  const pod = createSocket('udp4').bind(0, '127.0.0.1');
  await once(pod, 'listening');
  const free = createSocket('udp4').bind(0, '127.0.0.1');
  await once(free, 'listening');
  const { port } = free.address();
  await new Promise<void>((resolve) => void free.close(resolve));
  let address = '255.255.255.255'; // connect(2) refuses it, as it does when a route is missing
  let asked = Promise.withResolvers<void>();
  const held = await listenUdp({ address: '127.0.0.1', port, protocol: 'UDP' }, () => {
    asked.resolve();
    return { address, port: pod.address().port };
  });
  const client = createSocket('udp4');
  for (let sent = 0; sent < 3; sent += 1) {
    asked = Promise.withResolvers();
    client.send('lost', port, '127.0.0.1');
    await asked.promise;
  }
  address = '127.0.0.1';
  const arrived = once(pod, 'message');
  const again = setInterval(() => client.send('found', port, '127.0.0.1'), 20);
  const [bytes] = (await arrived) as [Buffer];
  clearInterval(again);
  assert.equal(bytes.toString(), 'found');
  client.close();
  pod.close();
  await held[Symbol.asyncDispose]();
});
