import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { channel } from '#api/exec.ts';
import { errorBodySchema, podSummarySchema } from '#api/pods.ts';
import { serveAdmin } from './server.ts';
import { eventsOf, on, openAdmin as open, refusalOf, run, type Served, yaml } from './testing/served-admin.ts';
import { watchTurns } from '../../test/busy-time.ts';

test('a drain ends and lists all running pods', async () => {
  await using served = await open();
  const socket = await run(served);
  const closed = once(socket, 'close');
  const { status, body } = await served.call('POST', '/v1/drain', '{"graceSeconds":0}');
  assert.deepEqual([status, JSON.parse(body)], [200, [{ namespace: 'default', name: 'web' }]]);
  assert.deepEqual(served.parts.sandboxes.running(), []);
  await closed;
  assert.deepEqual(JSON.parse((await served.call('POST', '/v1/drain', '{}')).body), []);
});

test('the admin socket serves monitoring: metrics in both formats, health, readiness, versions, disk use', async () => {
  await using served = await open();
  const get = async (path: string) => await served.call('GET', path);
  assert.deepEqual(await get('/metrics'), { status: 200, body: 'of prometheus\n' });
  assert.deepEqual(await get('/healthz'), { status: 200, body: 'ok\n' });
  assert.deepEqual(await get('/readyz'), { status: 200, body: 'ok\n' });
  assert.deepEqual(JSON.parse((await get('/v1/version')).body), { podvm: '1.2.3' });
  const measured = JSON.parse((await get('/v1/disk-usage')).body) as unknown;
  assert.deepEqual(measured, await served.parts.diskUsage(AbortSignal.timeout(60_000)));
  served.whyNotReady.push('no network');
  assert.deepEqual(await get('/readyz'), { status: 503, body: 'not ready: no network\n' });
});

describe('the admin socket', () => {
  let served: Served;
  before(async () => {
    served = await open();
  });
  after(async () => await served[Symbol.asyncDispose]());

  test('is accessible to its owner only, and served by one process', async () => {
    assert.equal((await stat(served.socketPath)).mode & 0o777, 0o600);
    await assert.rejects(serveAdmin(served.socketPath, served.parts), { kind: 'busy' });
  });

  test('is accessible to the members of a group if one is given', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-admin-'));
    const path = join(directory, 'podvm.sock');
    const gid = process.getgid?.();
    await using _server = await serveAdmin(path, served.parts, { gid });
    const found = await stat(path);
    assert.deepEqual([found.mode & 0o777, found.uid, found.gid], [0o660, process.getuid?.(), gid]);
    await rm(directory, { recursive: true });
  });

  test('replaces the socket of a killed process', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-admin-'));
    const path = join(directory, 'podvm.sock');
    await writeFile(path, 'no socket at all');
    await using _server = await serveAdmin(path, served.parts);
    assert.ok((await stat(path)).isSocket());
    await rm(directory, { recursive: true });
  });

  test('answers unknown requests with an error of its schema', async () => {
    const wrong = [
      ['GET', '/', 404, 'notFound'],
      ['GET', '/v1/pods/default/nope', 404, 'notFound'],
      ['GET', '/v1/pods/%E0%A4%A/web', 400, 'invalid'],
      ['GET', '//', 404, 'notFound'],
      ['PATCH', '/v1/pods', 404, 'notFound'],
      ['DELETE', '/v1/images', 400, 'invalid'],
      ['DELETE', '/v1/images?reference=x', 404, 'notFound'],
      ['GET', '/v1/images/inspect', 400, 'invalid'],
      ['GET', '/v1/images/inspect?reference=x', 404, 'notFound'],
      ['POST', '/v1/images/tag', 400, 'invalid', '{"reference":"x"}'],
      ['POST', '/v1/images/tag', 404, 'notFound', '{"reference":"x","name":"y"}'],
      ['POST', '/v1/images/pull', 400, 'invalid', '{"reference":7}'],
      ['POST', '/v1/images/pull', 400, 'invalid', 'no JSON'],
      ['POST', '/v1/images/pull', 400, 'invalid', JSON.stringify({ reference: 'x'.repeat(100_000) })],
    ] as const;
    for (const [method, path, status, kind, body] of wrong) {
      const refusal = await refusalOf(served, method, path, body);
      assert.deepEqual([refusal.status, refusal.kind], [status, kind], `${method} ${path}: ${refusal.message}`);
    }
  });

  test('answers random requests without internal errors, and continues', async () => {
    const method = fc.constantFrom('GET', 'POST', 'DELETE', 'PUT');
    const word = fc.oneof(
      fc.constantFrom('v1', 'pods', 'images', 'run', 'exec', 'logs', 'pull', '_', '..', '%'),
      fc.webFragments(),
    );
    const path = fc.array(word, { maxLength: 6 }).map((words) => `/${words.join('/')}`);
    // Its own unit of strings: fast-check takes a second to build the table of the default one.
    const stringUnit = fc.nat({ max: 0x10ffff }).map((point) => String.fromCodePoint(point));
    const body = fc.oneof(fc.string(), fc.json({ stringUnit }));
    await fc.assert(
      fc.asyncProperty(method, path, body, async (givenMethod, givenPath, givenBody) => {
        const { status } = await served.call(givenMethod, givenPath, givenBody);
        assert.ok(status >= 200 && status < 500, `${status} for ${givenMethod} ${givenPath}`);
      }),
      { numRuns: 300 },
    );
    assert.equal((await served.call('GET', '/v1/pods')).status, 200);
  });

  test('is not blocked by clients that send incomplete data or garbage', async () => {
    const halves = [
      'GET /v1/po',
      'POST /v1/images/pull HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{',
      '\0\0\0\0',
    ];
    const clients = halves.map((half) => {
      const socket = connect(served.socketPath).on('error', () => {});
      socket.write(half);
      return socket;
    });
    assert.equal((await served.call('GET', '/v1/pods')).status, 200);
    for (const client of clients) client.destroy();
  });
});

describe('a run over the admin socket', () => {
  test('shows its pod to other clients, which can inspect and stop it', async () => {
    await using served = await open();
    const socket = await run(served);
    const pods = v.parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', '/v1/pods')).body));
    assert.deepEqual(
      pods.map(({ name, phase }) => [name, phase]),
      [['web', 'Running']],
    );
    assert.equal((await served.call('GET', '/v1/pods/_/web')).status, 200);
    const refusal = await refusalOf(served, 'POST', '/v1/pods/_/web/stop', '{"graceSeconds":-1}');
    assert.deepEqual([refusal.status, refusal.kind], [400, 'invalid']);
    assert.equal((await served.call('POST', '/v1/pods/_/web/stop', '{}')).status, 200);
    for await (const event of eventsOf(socket)) if (event['event'] === 'finished') break;
    await served.server.idle();
    assert.equal((await served.call('GET', '/v1/pods')).body, '[]\n');
  });

  test('ends when its client disconnects in any way', async () => {
    await using served = await open();
    const socket = await run(served);
    socket.terminate();
    await served.server.idle();
    assert.equal(served.parts.sandboxes.journal.at(-1), 'remove sandbox');
  });

  test('ignores invalid commands', async () => {
    await using served = await open();
    const socket = await run(served);
    socket.send('no JSON');
    socket.send('{"command":"explode"}');
    socket.send(Buffer.from([0, 1, 2]));
    assert.equal((await served.call('GET', '/v1/pods/_/web')).status, 200);
    socket.send('{"command":"kill"}');
    for await (const event of eventsOf(socket)) if (event['event'] === 'finished') break;
  });

  test('refuses an invalid request, and one that is too large', async () => {
    await using served = await open();
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    socket.send('{"files":7}');
    const [event] = await Array.fromAsync(eventsOf(socket));
    assert.equal(event?.['event'], 'failed');
    const files = [{ name: 'f', text: yaml }];
    for (const logins of [
      [{ registry: 'r.example', username: 'u', password: ['hunter2'] }],
      [{ registry: 'r.example', other: 'hunter2' }],
      ['hunter2'],
      'hunter2',
      [{ registry: 'r.example', identityToken: 'hunter2'.repeat(10_000) }],
      Array.from({ length: 257 }, () => ({ registry: 'r.example', identityToken: 'hunter2' })),
      Array.from({ length: 17 }, () => ({ registry: 'r.example', identityToken: 'hunter22'.repeat(8000) })),
    ]) {
      const asking = served.talk('/v1/run');
      await once(asking, 'open');
      asking.send(JSON.stringify({ files, network: 'none', logins }));
      const [refusal] = await Array.fromAsync(eventsOf(asking));
      assert.equal(refusal?.['event'], 'failed');
      const said = JSON.stringify(refusal);
      assert.match(said, /"invalid".*Cannot read the request: logins/);
      assert.doesNotMatch(said, /hunter2/);
    }
    const big = served.talk('/v1/run');
    await once(big, 'open');
    big.send(Buffer.alloc(17 * 1024 * 1024, 0x20));
    const [code] = (await once(big, 'close')) as [number];
    assert.equal(code, 1009);
    await served.server.idle();
  });
});

describe('a run of files of all kinds over the admin socket', () => {
  const told = async (served: Served, text: string) => {
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    socket.send(JSON.stringify({ files: [{ name: 'f', text }], network: 'none' }));
    return { events: await Array.fromAsync(eventsOf(socket)) };
  };
  const errorOf = (events: readonly Record<string, unknown>[]) =>
    v.parse(v.object({ error: errorBodySchema }), events.at(-1)).error;

  test('runs supported pods, names the unsupported one, and ends with 125', async () => {
    await using served = await open();
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    const claim = yaml
      .replace('name: web', 'name: db')
      .replace('{ restart', '{ volumes: [{ name: v, nfs: { server: s } }], restart');
    const service = 'apiVersion: v1\nkind: Endpoints\nmetadata: { name: s }\n';
    socket.send(JSON.stringify({ files: [{ name: 'f', text: `${yaml}---\n${service}---${claim}` }], network: 'none' }));
    const events = [];
    for await (const event of eventsOf(socket)) {
      events.push(event);
      if ((event['detail'] as { reason?: string })?.reason === 'Started') socket.send('{"command":"kill"}');
    }
    const refused = events.find((it) => it['event'] === 'podRefused');
    assert.equal(refused?.['pod'], 'db');
    assert.match(String(refused?.['problems']), /^f:14: spec\.volumes\[0\]\.nfs: is not supported yet/);
    assert.match(
      String(events.find((it) => it['event'] === 'warning')?.['message']),
      /^f:8: kind: Endpoints s is skipped/,
    );
    assert.equal(events.filter((it) => it['event'] === 'podFinished').length, 1);
    assert.deepEqual(events.at(-1), { event: 'finished', exitCode: 125 });
  });

  test('reports skipped objects also when nothing is left to run', async () => {
    await using served = await open();
    const { events } = await told(served, 'apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: { name: d }\n');
    assert.match(String(events[0]?.['message']), /PodDisruptionBudget d is skipped/);
    assert.match(errorOf(events).message, /it contains no Pod/);
  });

  test('serves other clients while it reads a hostile file', async () => {
    await using served = await open();
    const aliases = `a: &a x\nb: [${'*a,'.repeat(100_000)}]`;
    const running = told(served, aliases);
    using turns = watchTurns();
    assert.equal((await served.call('GET', '/v1/pods')).status, 200);
    const { events } = await running;
    assert.ok(turns.longestMs() < 2000, `${turns.longestMs()} ms`);
    assert.match(errorOf(events).message, /f:2: the alias \*a exceeds the limit of/);
    const many = await told(served, '---\na: 1\n'.repeat(10_000));
    assert.match(errorOf(many.events).message, /f:2001: it must have at most 1000 documents/);
  });

  test('ends when it is interrupted before anything runs', async () => {
    await using served = await open();
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    socket.send(
      JSON.stringify({ files: [{ name: 'f', text: `${yaml}${'# long\n'.repeat(10_000)}` }], network: 'none' }),
    );
    socket.send('no command');
    socket.send('{"command":"terminate"}');
    assert.deepEqual(await Array.fromAsync(eventsOf(socket)), [{ event: 'finished', exitCode: 0 }]);
    assert.deepEqual(served.parts.sandboxes.journal, []);
  });

  test('refuses 50 MB with a message or close code, without reading them', async () => {
    await using served = await open();
    const before = process.memoryUsage.rss();
    const { events } = await told(served, '#'.repeat(9 * 1024 * 1024));
    assert.match(errorOf(events).message, /must have at most \d+ characters/);
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    const large = Buffer.alloc(50_000_000, 0x20);
    socket.send(large);
    const [code] = (await once(socket, 'close')) as [number];
    assert.equal(code, 1009);
    assert.ok(process.memoryUsage.rss() - before < 100e6 + large.length, 'beyond this test’s own data');
  });
});

describe('an exec over the admin socket', () => {
  const statusOf = async (socket: WebSocket): Promise<unknown> => {
    for await (const [data] of on(socket)) {
      const frame = data as Buffer;
      if (frame[0] === channel.status) return JSON.parse(frame.subarray(1).toString());
    }
    return undefined;
  };

  test('is refused for a missing container, and for an empty command', async () => {
    await using served = await open();
    const running = await run(served);
    const kindOf = async (path: string) =>
      ((await statusOf(served.talk(path))) as { error?: { kind?: string } }).error?.kind;
    assert.equal(await kindOf('/v1/pods/_/nope/exec?command=true'), 'notFound');
    assert.equal(await kindOf('/v1/pods/_/web/exec?command=true&container=nope'), 'notFound');
    assert.equal(await kindOf('/v1/pods/_/web/exec'), 'invalid');
    assert.equal(await kindOf('/v1/nonsense'), 'notFound');
    running.terminate();
  });

  test('accepts the longest command of a process, and refuses a longer one with a message', async () => {
    await using served = await open();
    const running = await run(served);
    const word = `command=${'%C3%BC'.repeat(60_000)}`;
    const ask = (words: number) => statusOf(served.talk(`/v1/pods/_/web/exec?${Array(words).fill(word).join('&')}`));
    assert.deepEqual(await ask(15), { exitCode: 0 });
    assert.match(JSON.stringify(await ask(20)), /arguments and variables are too long \(E2BIG\)/);
    running.terminate();
  });

  test('ignores frames on unknown channels, and an incomplete resize', async () => {
    await using served = await open();
    const running = await run(served);
    const socket = served.talk('/v1/pods/_/web/exec?command=true&tty=true');
    socket.on('open', () => {
      socket.send(Buffer.alloc(0));
      socket.send(Buffer.from([99, 1]));
      socket.send(Buffer.from([channel.resize, 0x7b]));
    });
    assert.deepEqual(await statusOf(socket), { exitCode: 0 });
    running.terminate();
  });
});
