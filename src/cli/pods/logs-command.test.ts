import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { logsCommand, type LogsOptions, timeOf } from './logs-command.ts';

test('logs --since takes a duration ago or a time', () => {
  const now = Date.UTC(2026, 0, 31, 12);
  assert.equal(timeOf('since', '90s', now), '2026-01-31T11:58:30.000Z');
  assert.equal(timeOf('since', '1d1h30m', now), '2026-01-30T10:30:00.000Z');
  assert.equal(timeOf('since', '2026-01-31T13:00:00+02:00', now), '2026-01-31T11:00:00.000Z');
  assert.equal(timeOf('until', '2026-01-31', now), '2026-01-31T00:00:00.000Z');
  for (const wrong of ['', '5', '5 m', 'yesterday', '1', '99999999d', '2026-13-01'])
    assert.throws(() => timeOf('since', wrong, now), { kind: 'invalid', fix: /--since 1h30m/ });
});

const container = (name: string, state = 'running') => ({
  ...{ name, state, kind: 'main', image: 'i' },
  ...{ ready: true, restartCount: 0 },
});
const pod = (name: string, app: string) => ({
  ...{ namespace: 'default', name, phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
  labels: { app },
  uid: 'u',
  containers: [container('main'), container('side'), container('later', 'waiting')],
  events: [],
});

/** Prints logs of two pods of a shop and one other. */
async function logs(pods: string[], options: Partial<LogsOptions>) {
  const said = { stdout: '', stderr: '', paths: [] as string[] };
  const known = [pod('web-0', 'shop'), pod('web-1', 'shop'), pod('db', 'data')];
  const client = {
    get: async (path: string, schema: v.GenericSchema) =>
      v.parse(schema, path.startsWith('/v1/pods?') ? known : known.find(({ name }) => path.endsWith(`/${name}`))),
    stream: async (_: string, path: string) => {
      said.paths.push(path);
      if (path.includes('web-0') && path.includes('previous=true')) throw new PodvmError('notFound', 'Cannot find it');
      return (async function* () {
        yield Buffer.from('one\ntw');
        yield Buffer.from('o\n');
      })();
    },
  } as unknown as Client; // SAFE: the only calls of the command
  const stream = (name: 'stdout' | 'stderr') =>
    new PassThrough().on('data', (text: Buffer) => (said[name] += String(text)));
  // SAFE: all that it uses
  const terminal = { stdout: stream('stdout'), stderr: stream('stderr'), hasColour: false } as unknown as Terminal;
  const all = { allContainers: false, follow: false, previous: false, timestamps: false, ...options };
  const code = await logsCommand(client, pods, all, terminal);
  return { ...said, code };
}

test('logs of several pods begin each line with the name, and those of one do not', async () => {
  assert.equal((await logs(['web-0'], {})).stdout, 'one\ntwo\n');
  const selected = await logs([], { selector: 'app=shop', tail: '5' });
  assert.equal(
    selected.stdout,
    ['default/web-0 | one', 'default/web-0 | two', 'default/web-1 | one', 'default/web-1 | two', ''].join('\n'),
  );
  assert.deepEqual(selected.paths, [
    '/v1/pods/default/web-0/logs?follow=false&previous=false&tail=5',
    '/v1/pods/default/web-1/logs?follow=false&previous=false&tail=5',
  ]);
  for (const tail of ['all', '-1'])
    assert.deepEqual((await logs(['db'], { tail })).paths, ['/v1/pods/_/db/logs?follow=false&previous=false']);
  const all = await logs(['db'], { allContainers: true });
  assert.deepEqual(all.stdout.match(/^.*(?= one)/gm), ['db/main |', 'db/side |']);
  const followed = await logs([], { selector: 'app', follow: true });
  assert.equal(followed.stdout.match(/ \| two/g)?.length, 3);
});

test('logs of several pods are printed as far as they can be read', async () => {
  const some = await logs(['web-0', 'web-1'], { previous: true });
  assert.match(some.stderr, /^podvm: Cannot find it\n/);
  assert.equal(some.stdout, 'web-1 | one\nweb-1 | two\n');
  assert.ok(some.code > 0);
});

test('logs refuses labels that no pod has, and wants pods or labels', async () => {
  await assert.rejects(logs([], { selector: 'app=none' }), { kind: 'notFound', fix: /-o wide/ });
  await assert.rejects(logs([], {}), { kind: 'invalid' });
  await assert.rejects(logs(['web-0'], { selector: 'app=shop' }), { kind: 'invalid' });
});
