import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, request, type RequestOptions } from 'node:http';
import { createConnection, createServer as createNetServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import type { Duplex } from 'node:stream';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { WebSocket, WebSocketServer, createWebSocketStream } from 'ws';
import { openedLinkSchema } from '#api/pod-link.ts';
import * as v from 'valibot';
import { type Dashboard, serveDashboard } from './serve-dashboard.ts';

describe('a link to a port of a pod', () => {
  let directory: string;
  let dashboard: Dashboard;
  let origin: string;
  let token: string;
  const asked: string[] = [];
  /** The pod's own servers, by the port. */
  const web = createServer((incoming, response) => {
    void text(incoming).then((body) => {
      asked.push(`${incoming.method} ${incoming.url} ${incoming.headers.host} ${body}`);
      response.setHeader('set-cookie', ['a=1', 'b=2']);
      response.setHeader('referrer-policy', 'unsafe-url');
      response.end('<script>document.title = "of the pod"</script>');
    });
  });
  const sockets = new WebSocketServer({ server: web });
  sockets.on('connection', (socket) =>
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
  );
  const raw = createNetServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end('HTTP/1.1 200 \u0001\r\nx-bad: a\u0001b\r\nset-cookie: a=1\r\n\r\nfine'));
  });
  const switching = createNetServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () =>
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\nx-name: caf\u00e9\r\n\r\n',
        'latin1',
      ),
    );
  });
  const ports = new Map<string, Server>();
  /** The node: passes connections on as `port-forward-session.ts` does. */
  const admin = createServer();
  const sessions = new WebSocketServer({ server: admin });
  sessions.on('connection', (socket, { url = '' }) => {
    const [, port = ''] = /^\/v1\/pods\/default\/web\/port-forward\?port=(\d+)$/.exec(url) ?? [];
    const server = ports.get(port);
    if (server === undefined) {
      socket.send(
        JSON.stringify({ kind: 'unavailable', message: `Cannot connect to port ${port}: no process listens` }),
      );
      return socket.close();
    }
    const bound = server.address();
    assert.ok(typeof bound === 'object' && bound !== null);
    const connection = createConnection({ port: bound.port, host: '127.0.0.1', allowHalfOpen: true });
    connection.on('error', () => socket.terminate());
    connection.on('data', (chunk) => socket.send(chunk));
    connection.on('end', () => socket.send(Buffer.alloc(0)));
    socket.on('message', (data: Buffer) => (data.length === 0 ? connection.end() : connection.write(data)));
    socket.on('close', () => connection.destroy());
  });
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'podvm-links-'));
    for (const [name, server] of [
      ['80', web],
      ['81', raw],
      ['83', switching],
    ] as const) {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      ports.set(name, server);
    }
    const socketPath = join(directory, 'podvm.sock');
    admin.listen(socketPath);
    await once(admin, 'listening');
    dashboard = await serveDashboard({ socketPath, port: 0 });
    [origin = '', token = ''] = dashboard.url.split('/#token=');
  });
  after(async () => {
    await dashboard[Symbol.asyncDispose]();
    for (const { clients } of [sessions, sockets]) for (const client of clients) client.terminate();
    for (const server of [admin, web]) server.closeAllConnections();
    for (const server of [admin, web, raw, switching]) server.close();
    await rm(directory, { recursive: true });
  });

  const ask = async (
    path: string,
    headers: Record<string, string>,
    { body = '', ...more }: RequestOptions & { body?: string } = {},
  ) => {
    const sent = request(`${origin}${path}`, { headers, agent: false, ...more });
    sent.end(body);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage]; // SAFE: what a request emits
    return { status: answer.statusCode, headers: answer.headers, body: await text(answer).catch(() => 'cut') };
  };
  const open = async (port: number | string) =>
    await ask(`/links/default/web/${port}`, { authorization: `Bearer ${token}` }, { method: 'POST' });
  const linkTo = async (port: number): Promise<string> => {
    const { host } = v.parse(openedLinkSchema, JSON.parse((await open(port)).body));
    return `${host}:${new URL(origin).port}`;
  };

  it('passes requests on with their headers and body, and the answer back, at a host of its own', async () => {
    asked.length = 0;
    const host = await linkTo(80);
    const answer = await ask('/a?b=c', { host }, { method: 'POST', body: 'hello' });
    assert.deepEqual(asked, [`POST /a?b=c ${host} hello`]);
    assert.deepEqual([answer.status, answer.body], [200, '<script>document.title = "of the pod"</script>']);
    assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2']);
    assert.equal(answer.headers['referrer-policy'], 'same-origin', 'the label is not told to other sites');
    assert.notEqual(host, await linkTo(80), 'no two links share an origin');
  });

  it('opens only for the holder of the token, and a page of a pod cannot reach the dashboard through it', async () => {
    const host = await linkTo(80);
    assert.equal((await ask('/links/default/web/80', {}, { method: 'POST' })).status, 403);
    const fromPod = { authorization: `Bearer ${token}`, origin: `http://${host}` };
    assert.equal((await ask('/links/default/web/80', fromPod, { method: 'POST' })).status, 403);
    for (const port of ['0', '65536', '80x', '-1']) assert.equal((await open(port)).status, 404, port);
    const other = `${'0'.repeat(40)}.localhost`;
    for (const wrong of [other, `x.${host}`, host.slice(1), host.replace('.localhost', '.localhost.example.org')])
      assert.equal((await ask('/', { host: wrong })).status, 403, wrong);
    asked.length = 0;
    await ask('/v1/pods', { host, authorization: `Bearer ${token}` }); // goes to the pod, not to the node
    assert.deepEqual(asked, [`GET /v1/pods ${host} `]);
  });

  it('passes WebSockets on', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${new URL(origin).port}/chat`, {
      headers: { host: await linkTo(80) },
    });
    await once(socket, 'open');
    const echo = createWebSocketStream(socket, { encoding: 'utf8' });
    echo.write('over the link');
    assert.equal(String(await once(echo, 'data')), 'over the link');
    echo.destroy();
  });

  it('passes the bytes of headers on unchanged when the protocol changes', async () => {
    const headers = { host: await linkTo(83), connection: 'upgrade', upgrade: 'x' };
    const sent = request(`${origin}/`, { headers, agent: false });
    sent.end();
    const [answer, socket] = (await once(sent, 'upgrade')) as [IncomingMessage, Duplex]; // SAFE: what a request emits
    socket.destroy();
    assert.equal(answer.headers['x-name'], 'caf\u00e9'); // as UTF-8, \u00e9 would be two bytes
  });

  it('says why a port cannot be opened, and survives an answer that no server may send', async () => {
    const closed = await ask('/', { host: await linkTo(82) });
    assert.equal(closed.status, 502);
    assert.match(closed.body, /^Cannot open port 82 of default\/web: Cannot connect to port 82: no process listens\n$/);
    const odd = ask('/', { host: await linkTo(81) }).catch((error: NodeJS.ErrnoException) => error.code);
    const told = await odd;
    assert.ok(told === 'ECONNRESET' || (typeof told === 'object' && told.status === 502), JSON.stringify(told));
    const switched = await ask('/', { host: await linkTo(83) }, { signal: AbortSignal.timeout(10_000) });
    assert.deepEqual([switched.status, switched.body.slice(0, 36)], [502, 'Cannot open port 83 of default/web: ']);
    assert.equal((await ask('/', {})).status, 200);
  });

  it('leaves connections for the dashboard, and for other links, however many the page of a pod opens', async () => {
    const port = Number(new URL(origin).port);
    const held: Socket[] = [];
    const hold = async (host: string) => {
      const socket = createConnection({ port, host: '127.0.0.1' }).on('error', () => {});
      held.push(socket);
      socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n`);
      const [answer] = (await once(socket, 'data')) as [Buffer]; // SAFE: what a stream without an encoding emits
      return answer.toString().slice(9, 12);
    };
    const [one, other] = [await linkTo(83), await linkTo(83)];
    const answers = [];
    for (let count = 0; count < 200; count += 1) answers.push(await hold(one));
    assert.deepEqual([answers.filter((it) => it === '101').length, answers.at(-1)], [24, '503']);
    assert.equal(await hold(other), '101');
    // Also of others, who say nothing.
    for (let count = 0; count < 200; count += 1)
      held.push(createConnection({ port, host: '127.0.0.1' }).on('error', () => {}));
    assert.equal((await open(80)).status, 201);
    assert.equal((await ask('/', {})).status, 200);
    for (const socket of held) socket.destroy();
  });

  it('is refused where another program could get its requests at ::1', async () => {
    // At 127.0.0.1, the kernel chooses ports from 32,768 on for others (`net.ipv4.ip_local_port_range`).
    await using other = createNetServer().listen(randomInt(20_000, 32_000), '::1');
    const isThere = await once(other, 'listening').then(
      () => true,
      () => false,
    );
    if (!isThere) return; // a host without IPv6
    const bound = other.address();
    assert.ok(typeof bound === 'object' && bound !== null);
    await using alone = await serveDashboard({ socketPath: join(directory, 'podvm.sock'), port: bound.port });
    const [base = '', its = ''] = alone.url.split('/#token=');
    const answer = await fetch(`${base}/links/default/web/80`, {
      method: 'POST',
      headers: { authorization: `Bearer ${its}` },
    });
    assert.equal(answer.status, 409);
    assert.match(await answer.text(), /another program has this port at ::1/);
  });
});
