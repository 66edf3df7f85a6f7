import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { startChild } from '#host/process/start-child.ts';
import { listenFor } from './host-listeners.ts';

/** A node in a network namespace without interfaces, which answers on ports of this one. */
const program = `
  import { listenOutside } from ${JSON.stringify(join(import.meta.dirname, '../../network/ports/outside-ports.ts'))};
  const [tcpPort, udpPort, takenPort] = process.argv.slice(1).map(Number);
  const at = (port) => ({ address: '127.0.0.1', port });
  const server = await listenOutside(at(tcpPort), 'TCP');
  server.on('connection', (socket) => socket.end('by TCP'));
  const socket = await listenOutside(at(udpPort), 'UDP');
  socket.on('message', (bytes, from) => socket.send('by UDP', from.port, from.address));
  const refused = await listenOutside(at(takenPort), 'TCP').catch(({ code }) => code);
  console.log(refused);
  process.stdin.on('end', () => process.exit()).resume();
`;

const taken = createServer();
after(() => void taken.close());
/** A port that no one gets by chance: the kernel chooses from 32,768 on (`net.ipv4.ip_local_port_range`). */
const chosenPort = () => randomInt(20_000, 32_000);

test('listenFor() gives sockets of this network namespace to a process in another', { timeout: 60_000 }, async () => {
  await once(taken.listen(0, '127.0.0.1'), 'listening');
  const [tcpPort, udpPort] = [chosenPort(), chosenPort()];
  const ports = [tcpPort, udpPort, (taken.address() as { port: number }).port]; // SAFE: bound above
  const node = [process.execPath, '--input-type=module-typescript', '-e', program, ...ports.map(String)];
  const child = await startChild('unshare', ['--user', '--map-root-user', '--net', '--', ...node], {
    stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
  });
  const { stdin, stdout } = child;
  assert.ok(stdin !== null && stdout !== null);
  listenFor(child);
  const ended = once(child, 'exit');
  const [said] = (await once(stdout, 'data')) as [Buffer];
  assert.equal(said.toString(), 'EADDRINUSE\n');

  assert.equal(await text(connect(tcpPort, '127.0.0.1')), 'by TCP');
  const client = createSocket('udp4');
  client.send('hello', udpPort, '127.0.0.1');
  const [answer] = (await once(client, 'message')) as [Buffer];
  assert.equal(answer.toString(), 'by UDP');
  client.close();
  stdin.end();
  await ended;
});
