import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, request } from 'node:http';
import { createConnection, createServer as createNetServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { WebSocket, WebSocketServer } from 'ws';
import { bundleClient } from './bundle-client.ts';
import { type Dashboard, serveDashboard } from './serve-dashboard.ts';

/** Largest sum of all files that pages load, in gzipped bytes. */
const maxBytes = 250 * 1024;

describe('the dashboard', () => {
  let directory: string;
  let dashboard: Dashboard;
  let origin: string;
  let token: string;
  const calls: string[] = [];
  const admin = createServer((asked, response) => {
    void text(asked).then((body) => {
      calls.push(`${asked.method} ${asked.url} ${body}`);
      response.writeHead(201, { 'content-type': 'application/json', 'x-secret': 'no' }).end('{"it":1}\n');
    });
  });
  const sessions = new WebSocketServer({ server: admin });
  sessions.on('connection', (socket, asked) => {
    calls.push(`WS ${asked.url} ${asked.headers['sec-websocket-protocol'] ?? ''}`);
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'podvm-dashboard-'));
    const socketPath = join(directory, 'podvm.sock');
    admin.listen(socketPath);
    await once(admin, 'listening');
    dashboard = await serveDashboard({ socketPath, port: 0 });
    [origin = '', token = ''] = dashboard.url.split('/#token=');
  });
  after(async () => {
    await dashboard[Symbol.asyncDispose]();
    for (const client of sessions.clients) client.terminate();
    admin.close();
    await rm(directory, { recursive: true });
  });

  /** Sends a request, and returns its status, headers and body. */
  const ask = async (path: string, { method = 'GET', body = '', ...headers }: Record<string, string> = {}) => {
    const sent = request(`${origin}${path}`, { method, headers, agent: false });
    sent.end(body);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage]; // SAFE: what a request emits
    return { status: answer.statusCode, headers: answer.headers, body: await text(answer) };
  };
  const withToken = () => ({ authorization: `Bearer ${token}` });

  it('passes the calls of its table on, with their bodies, and only the type of the answer', async () => {
    calls.length = 0;
    const answer = await ask('/v1/pods/default/web/stop?x=1', { ...withToken(), method: 'POST', body: '{"a":1}' });
    assert.deepEqual(calls, ['POST /v1/pods/default/web/stop?x=1 {"a":1}']);
    assert.equal(answer.status, 201);
    assert.equal(answer.body, '{"it":1}\n');
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(answer.headers['x-secret'], undefined);
  });

  it('refuses calls that are not in its table', async () => {
    calls.length = 0;
    const others = ['POST /v1/drain', 'POST /v1/images/pull', 'GET /v1/pods/a/b/c/d', 'DELETE /v1/images?reference=x'];
    others.push('POST /v1/pods', 'GET /v1/pods/a/../../../v1/overhead', 'GET /v1/pods//web', 'PUT /v1/pods/a/b');
    for (const other of others) {
      const [method = '', path = ''] = other.split(' ');
      assert.equal((await ask(path, { ...withToken(), method })).status, 404, other);
    }
    assert.deepEqual(calls, []);
  });

  it('refuses calls without its token, of other hosts, and of pages of other sites', async () => {
    calls.length = 0;
    const { port } = new URL(origin);
    const refused: readonly Record<string, string>[] = [
      {},
      { authorization: 'Bearer ' },
      { authorization: `Bearer ${'0'.repeat(64)}` },
      { authorization: token },
      { cookie: `token=${token}` },
      { ...withToken(), host: `example.org:${port}` },
      { ...withToken(), host: `127.0.0.1.example.org:${port}` },
      { ...withToken(), origin: 'http://example.org' },
      { ...withToken(), origin: 'null' },
      { ...withToken(), origin: 'http://127.0.0.1:1' },
      { ...withToken(), 'sec-fetch-site': 'cross-site' },
      { ...withToken(), 'sec-fetch-site': 'same-site' },
    ];
    for (const headers of refused) {
      for (const [method, path] of [
        ['GET', '/v1/pods'],
        ['POST', '/v1/pods/default/web/stop'],
        ['GET', '/metrics'],
      ] as const) {
        assert.equal((await ask(path, { ...headers, method })).status, 403, JSON.stringify(headers));
      }
    }
    assert.deepEqual(calls, []);
    assert.equal((await ask('/', { host: 'example.org' })).status, 403);
  });

  it('sends pages and their files with headers that allow nothing of other origins', async () => {
    for (const path of [
      '/',
      '/pods',
      '/pods/default/web',
      '/images',
      '/volumes',
      '/assets/main.js',
      '/assets/main.css',
    ]) {
      const { status, headers } = await ask(path);
      assert.equal(status, 200, path);
      const policy = headers['content-security-policy'];
      assert.ok(typeof policy === 'string');
      assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; /);
      assert.doesNotMatch(policy, /unsafe|https?:|\*/);
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['access-control-allow-origin'], undefined);
    }
    for (const path of ['/assets/../package.json', '/assets/absent.js', '/package.json', '/pods/a/b/c'])
      assert.equal((await ask(path)).status, 404, path);
    assert.doesNotMatch((await ask('/')).body, new RegExp(token));
  });

  it('passes a WebSocket on when a subprotocol has the token', async () => {
    calls.length = 0;
    const url = `${origin.replace('http', 'ws')}/v1/pods/default/web/exec?command=sh`;
    const socket = new WebSocket(url, ['podvm.dev', `podvm.dev.token.${token}`], { origin });
    await once(socket, 'open');
    assert.equal(socket.protocol, 'podvm.dev');
    const large = Buffer.alloc(300_000, 7);
    const back: Promise<unknown[]> = once(socket, 'message');
    socket.send(large);
    const [echoed] = await back;
    assert.ok(large.equals(echoed as Buffer)); // SAFE: a binary message
    socket.close();
    await once(socket, 'close');
    assert.deepEqual(calls, ['WS /v1/pods/default/web/exec?command=sh ']);
  });

  it('refuses a WebSocket without the token, of another site, or of another call', async () => {
    const protocols = ['podvm.dev', `podvm.dev.token.${token}`];
    const base = origin.replace('http', 'ws');
    const refused = [
      new WebSocket(`${base}/v1/pods/default/web/exec`, ['podvm.dev']),
      new WebSocket(`${base}/v1/pods/default/web/exec`, protocols, { origin: 'http://example.org' }),
      new WebSocket(`${base}/v1/pods/default/web/exec`, protocols, { headers: { host: 'example.org' } }),
      new WebSocket(`${base}/v1/run`, protocols),
      new WebSocket(`${base}/v1/pods/default/web/port-forward?port=80`, protocols),
    ];
    for (const socket of refused) {
      const [error] = (await once(socket, 'error')) as [Error]; // SAFE: what a socket emits
      assert.match(error.message, /403/);
    }
  });

  it('keeps no socket of a WebSocket that was refused, or whose page is gone before the node answers', async () => {
    const silent = createNetServer().listen(join(directory, 'silent.sock'));
    const asked = once(silent, 'connection') as Promise<[Socket]>; // SAFE: what a server emits
    await using alone = await serveDashboard({ socketPath: join(directory, 'silent.sock'), port: 0 });
    const [address = '', its = ''] = alone.url.split('/#token=');
    const { host, port } = new URL(address);
    const ask = (token: string) => {
      // A peer that never closes by itself.
      const peer = createConnection({ host: '127.0.0.1', port: Number(port), allowHalfOpen: true }).on(
        'error',
        () => {},
      );
      const head = `GET /v1/pods/default/web/exec HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\n`;
      peer.write(`${head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
      return peer;
    };
    const refused = ask('0');
    const [answer] = (await once(refused, 'data')) as [Buffer]; // SAFE: what a stream without an encoding emits
    assert.match(answer.toString(), /^HTTP\/1.1 403 /);
    const writing = setInterval(() => refused.write('more'), 10); // fails once the other end is closed
    await assert.rejects(once(refused, 'close'), { code: /^(?:EPIPE|ECONNRESET)$/ });
    clearInterval(writing);
    const page = ask(its);
    const [node] = await asked;
    const closed = once(node.resume(), 'close');
    page.end();
    await closed;
    silent.close();
  });

  it('answers data that is not HTTP with an error, and continues', async () => {
    const { port } = new URL(origin);
    const socket = createConnection(Number(port), '127.0.0.1');
    socket.end('GET /v1/pods HTTP/1.1\r\nHost: a b\r\nHost: c\r\n\r\n');
    await text(socket).catch(() => '');
    assert.equal((await ask('/')).status, 200);
  });

  it('reports a port in use, and a missing node', async () => {
    const { port } = new URL(origin);
    const again = serveDashboard({ socketPath: '/nowhere', port: Number(port) });
    await assert.rejects(again, { kind: 'busy', message: `Cannot serve the dashboard on 127.0.0.1 port ${port}` });
    await using alone = await serveDashboard({ socketPath: join(directory, 'absent.sock'), port: 0 });
    const [address = '', its = ''] = alone.url.split('/#token=');
    const answer = await fetch(`${address}/v1/pods`, { headers: { authorization: `Bearer ${its}` } });
    assert.equal(answer.status, 503);
    assert.match(await answer.text(), /"kind":"unavailable".*"fix":/);
  });
});

describe('the files that pages load', () => {
  it(`take at most ${maxBytes} bytes when gzipped`, async () => {
    const { assets } = await bundleClient(join(import.meta.dirname, '../..'));
    const sizes = assets.map(({ bytes }) => gzipSync(bytes).length);
    assert.ok(sizes.length >= 4);
    const sum = sizes.reduce((all, size) => all + size, 0);
    assert.ok(sum <= maxBytes, `${sum} bytes`);
  });
});
