import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { createServer, type IncomingMessage } from 'node:http';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type Client, createClient } from '../client.ts';
import { supportFiles } from './support-files.ts';

const signal = new AbortController().signal;
const limits = {};
const container = { name: 'main', image: 'nginx', state: 'terminated', limits, mounts: [], message: 'hunter2' };
const answers: Readonly<Record<string, unknown>> = {
  '/v1/pods?ended=true': [
    {
      ...{ namespace: 'a b', name: 'web', phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
      labels: { key: 'hunter2' },
    },
  ],
  '/v1/pods/a%20b/web/description': {
    ...{ namespace: 'a b', name: 'web', madeBy: 'podvm', phase: 'Failed', reason: 'Error: hunter2', createdAt: '' },
    ...{ addresses: [], containers: [container], console: ['Linux'] },
    events: [{ at: '', type: 'Warning', reason: 'Unhealthy', message: 'hunter2' }],
  },
  '/v1/pods/a%20b/web/diagnosis': {
    isHealthy: false,
    findings: [
      { name: 'agent', status: 'ok', detail: 'answers' },
      { name: 'event', status: 'warn', detail: 'hunter2' },
      { name: 'end of main', status: 'warn', detail: 'hunter2' },
    ],
  },
};

function clientOf(given: typeof answers, asked: string[] = []): Client {
  const find = (path: string): unknown => {
    asked.push(path);
    if (path in given) return given[path];
    throw new PodvmError('notFound', 'nothing here');
  };
  return {
    get: async (path, schema) => v.parse(schema, find(path)),
    send: () => assert.fail('changes nothing'),
    stream: async (_, path) => {
      const found = find(path);
      const chunks = typeof found === 'string' ? [Buffer.from(`text of ${found}`)] : (found as Iterable<Buffer>); // SAFE: the test's
      return Readable.from(chunks) as IncomingMessage;
    },
    open: () => assert.fail('opens nothing'),
  };
}

test('takes what is known to hold no secret, and says what is not there', async () => {
  const files = await supportFiles(clientOf({ ...answers, '/v1/log': 'log' }), { logs: false }, signal);
  const texts = new Map(files.map(({ name, text }) => [name, text]));
  assert.equal(texts.get('node/log.txt'), 'text of log');
  assert.equal(texts.get('node/metrics.txt'), 'not there: nothing here\n');
  assert.match(texts.get('pods/a b_web/description.json') ?? '', /"Linux"[^]*"reason": "Unhealthy"/);
  assert.match(texts.get('pods/a b_web/doctor.json') ?? '', /"answers"/);
  assert.match(texts.get('pods/a b_web/machine.json') ?? '', /^not there: /);
  for (const { name, text } of files) assert.ok(!text.includes('hunter2'), `${name}: ${text}`);
});

test('asks for logs of containers only when they are wanted', async () => {
  const asked: string[] = [];
  const details = {
    ...{ namespace: 'a b', name: 'web', phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
    ...{ uid: '', labels: {}, events: [], containers: [{ ...container, kind: 'main', ready: true, restartCount: 0 }] },
  };
  const path = '/v1/pods/a%20b/web';
  const given = { ...answers, [path]: details, [`${path}/logs?container=main&tail=500`]: 'main' };
  await supportFiles(clientOf(given, asked), { logs: false }, signal);
  assert.ok(!asked.some((each) => each.includes('/logs')));
  const files = await supportFiles(clientOf(given), { logs: true }, signal);
  assert.equal(files.find(({ name }) => name === 'pods/a b_web/logs/main.log')?.text, 'text of main');
});

test('keeps the end of what a node streams without end, in a bound for all', async () => {
  let held = 0;
  function* flood() {
    for (let at = 0; at < 10; at += 1) {
      held += 1_000_000;
      yield Buffer.concat([Buffer.from('password=hun'), Buffer.alloc(999_974, 'x'), Buffer.from(`\nlast ${at}\n`)]);
    }
  }
  const names = Array.from({ length: 40 }, (_, at) => `c${at}`);
  const details = {
    ...{ namespace: 'a b', name: 'web', phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
    ...{ uid: '', labels: {}, events: [] },
    containers: names.map((name) => ({ ...container, name, kind: 'main', ready: true, restartCount: 0 })),
  };
  const path = '/v1/pods/a%20b/web';
  const logs = names.map((name) => [`${path}/logs?container=${name}&tail=500`, { [Symbol.iterator]: flood }] as const);
  const files = await supportFiles(
    clientOf({ ...answers, [path]: details, ...Object.fromEntries(logs) }),
    {
      logs: true,
    },
    signal,
  );
  const texts = files.filter(({ name }) => name.includes('/logs/')).map(({ text }) => text);
  assert.equal(held, 400_000_000);
  assert.equal(texts.length, 40);
  assert.match(texts[0] ?? '', /^\(the beginning is left out\)\n(?:last \d+\n|password=hunx+\n)+$/);
  const size = texts.reduce((sum, text) => sum + text.length, 0);
  assert.ok(size < 34 * 1024 * 1024, `${size} characters`);
});

test('names the pods that it leaves out', async () => {
  const path = '/v1/pods?ended=true';
  const [pod] = v.parse(v.array(v.record(v.string(), v.unknown())), answers[path]);
  const pods = (count: number) => Array.from({ length: count }, (_, at) => ({ ...pod, name: `p${at}` }));
  const textOf = async (count: number) => {
    const files = await supportFiles(clientOf({ [path]: pods(count) }), { logs: false }, signal);
    assert.equal(files.filter(({ name }) => name.endsWith('/description.json')).length, 100);
    return files.find(({ name }) => name === 'pods/left-out.txt')?.text;
  };
  assert.equal(await textOf(100), undefined);
  const left = '2 pods of node/pods.json are not described: a report has at most 100\na b/p100\na b/p101\n';
  assert.equal(await textOf(102), left);
});

test('has nothing of a node that does not serve, and says what one does not answer', async () => {
  const failing = (kind: 'unavailable' | 'internal') => ({
    ...clientOf({ '/v1/log': 'log' }),
    get: () => Promise.reject(new PodvmError(kind, 'no list')),
  });
  assert.deepEqual(await supportFiles(failing('unavailable'), { logs: true }, signal), []);
  assert.deepEqual(await supportFiles(failing('internal'), { logs: true }, signal), [
    { name: 'node/pods.json', text: 'not there: no list\n' },
    { name: 'node/metrics.txt', text: 'not there: nothing here\n' },
    { name: 'node/log.txt', text: 'text of log' },
  ]);
});

test('an end of the command ends the wait for a node that hangs', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-support-'));
  const socketPath = join(directory.path, 's');
  const server = createServer(); // answers nothing
  server.listen(socketPath);
  const ending = new AbortController();
  server.once('request', () => ending.abort(new PodvmError('cancelled', 'ended by SIGINT')));
  try {
    await assert.rejects(supportFiles(createClient(socketPath), { logs: true }, ending.signal), /ended by SIGINT/);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
