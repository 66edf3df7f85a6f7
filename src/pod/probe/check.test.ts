import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { fakeVersions } from '#sandbox/testing/fake-parts.ts';
import { check, type CheckTarget } from './check.ts';
import { countResult } from './probe.ts';

/** Maps guest ports to the real ones, which are reachable only through this map. */
const guestPorts = new Map<number, number>();

/** A target that only `dial` reaches. */
const target: CheckTarget = {
  container: { exec: () => Promise.reject(new PodvmError('unavailable', 'Cannot exec: gone')) },
  ports: [{ name: 'web', containerPort: 1 }],
  sandbox: {
    status: {
      id: '',
      state: 'ready',
      createdAt: new Date(),
      addresses: ['192.0.2.5/24'],
      parts: fakeVersions,
      phases: [],
      containers: [],
      volumes: [],
    },
    async dial(port, address, signal) {
      assert.equal(address, '192.0.2.5');
      const socket = connect({ port: guestPorts.get(port) ?? 1, host: '127.0.0.1', signal });
      await once(socket, 'connect');
      return socket;
    },
  },
};
const never = new AbortController().signal;

async function serve(t: TestContext, handler: Parameters<typeof createServer>[1]): Promise<number> {
  const server: Server = createServer(handler as () => void);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  guestPorts.set(80, (server.address() as AddressInfo).port);
  return 80;
}

const get = (port: number, path = '/', httpHeaders: { name: string; value: string }[] = []) =>
  check({ httpGet: { port, path, scheme: 'HTTP', httpHeaders } }, target, never);

test('check() fails on a closed port, and when exec fails', async () => {
  assert.equal((await check({ tcpSocket: { port: 'web' } }, target, never)).isSuccess, false);
  assert.equal((await get(1)).isSuccess, false);
  assert.deepEqual(await check({ exec: { command: ['x'] } }, target, never), {
    isSuccess: false,
    message: 'Cannot exec: gone',
  });
});

test('check() fails on 400 and more, on a redirect loop, and when the answer takes too long', async (t) => {
  const port = await serve(t, (request, response) => {
    if (request.url === '/slow') return;
    const status = Number(request.url?.slice(1));
    response.writeHead(status, status === 302 ? { location: '/302' } : {}).end('x');
  });
  assert.equal((await get(port, '/400')).isSuccess, false);
  assert.equal((await get(port, '/503')).message, 'HTTP probe answered 503');
  assert.match((await get(port, '/302')).message, /redirected more than 10 times/);
  const late = AbortSignal.timeout(50);
  const slow = await check({ httpGet: { port, path: '/slow', scheme: 'HTTP', httpHeaders: [] } }, target, late);
  assert.deepEqual(slow, { isSuccess: false, message: 'no answer in time' });
});

test('check() takes a change of the protocol, and a connection that ends early, as an answer', async (t) => {
  const port = await serve(t, (request) => {
    const head =
      request.url === '/upgrade' ? '101 X\r\nConnection: upgrade\r\nUpgrade: x' : '200 OK\r\nContent-Length: 9';
    request.socket.end(`HTTP/1.1 ${head}\r\n\r\n`);
  });
  assert.deepEqual(await get(port, '/upgrade'), { isSuccess: false, message: 'HTTP probe answered 101' });
  assert.equal((await get(port, '/early')).isSuccess, false);
});

test('check() follows a redirect on the same host, treats one to another host as success, and limits the body', async (t) => {
  const port = await serve(t, (request, response) => {
    if (request.url === '/here') response.writeHead(302, { location: '/there?x=1' }).end();
    else if (request.url === '/away') response.writeHead(302, { location: 'http://example.invalid/' }).end();
    else if (request.url === '/endless') {
      const more = () => void (response.write('x'.repeat(65_536)) && setImmediate(more));
      response.on('drain', more).on('error', () => {});
      more();
    } else response.writeHead(request.url === '/there?x=1' && request.headers['x-a'] === 'b' ? 200 : 500).end();
  });
  assert.equal((await get(port, '/here', [{ name: 'X-A', value: 'b' }])).isSuccess, true);
  assert.equal((await get(port, '/away')).isSuccess, true);
  assert.equal((await get(port, '/endless')).isSuccess, true);
  assert.equal((await check({ tcpSocket: { port } }, target, never)).isSuccess, true);
});

test('countResult() settles at the thresholds of consecutive results', () => {
  const probe = { successThreshold: 2, failureThreshold: 3 };
  let count: Parameters<typeof countResult>[0];
  const settled = [false, false, true, false, false, false, true, true].map((isSuccess) => {
    const next = countResult(count, isSuccess, probe);
    count = next.count;
    return next.settled;
  });
  assert.deepEqual(settled, [undefined, undefined, undefined, undefined, undefined, false, undefined, true]);
});
