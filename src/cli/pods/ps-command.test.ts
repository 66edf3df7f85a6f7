import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import { parse } from 'yaml';
import { type PodSummary, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { psCommand, type PsOptions } from './ps-command.ts';
import type { Terminal } from '../terminal/terminal.ts';

const pod = (name: string, more: Partial<PodSummary> = {}): PodSummary => ({
  namespace: 'default',
  name,
  phase: 'Running',
  ready: '1/1',
  restarts: 0,
  createdAt: new Date().toISOString(),
  addresses: ['10.0.0.2'],
  labels: { app: name },
  images: ['nginx'],
  ...more,
});

/** Runs `podvm ps` on lists, one for each poll; the last poll ends it. */
async function ps(lists: readonly (readonly PodSummary[])[], options: Partial<PsOptions> = {}) {
  let stdout = '';
  const ended = new AbortController();
  let looks = 0;
  const client = {
    get: async () => {
      const now = lists[looks];
      looks += 1;
      if (looks === lists.length) ended.abort();
      return v.parse(v.array(podSummarySchema), now);
    },
  } as unknown as Client; // SAFE: the only call of the command
  const terminal = {
    stdout: new PassThrough().on('data', (text: Buffer) => (stdout += text.toString())),
  } as unknown as Terminal; // SAFE: all that it uses
  const none = { orphans: () => Promise.resolve([]), withEnded: () => Promise.resolve() };
  const all = { all: false, json: false, output: 'table', watch: false, ...options } as const;
  await psCommand(client, none, all, terminal, ended.signal);
  return stdout;
}

test('ps has several output formats, and selects by labels', async () => {
  const pods = [pod('web'), pod('dns', { namespace: 'kube-system', owner: 'kubelet' })];
  assert.match(
    await ps([pods]),
    /^NAMESPACE .* OWNER +IP\ndefault +web .* podvm .*\nkube-system +dns .* kubelet .*\n$/,
  );
  const dual = [pod('web', { addresses: ['10.0.0.2', 'fd00::2'] })];
  assert.match(await ps([dual]), / 10\.0\.0\.2\n$/);
  assert.match(await ps([dual], { output: 'wide' }), / 10\.0\.0\.2,fd00::2 /);
  assert.match(await ps([pods], { output: 'wide' }), /IP +IMAGES +LABELS\ndefault +web .* nginx +app=web\n/);
  assert.equal(await ps([pods], { output: 'name' }), 'default/web\nkube-system/dns\n');
  assert.equal(await ps([pods], { quiet: true }), 'default/web\nkube-system/dns\n');
  assert.equal(await ps([pods], { output: 'name', name: 'kube-system/dns' }), 'kube-system/dns\n');
  await assert.rejects(ps([pods], { name: 'nope' }), { kind: 'notFound', message: 'Cannot find pod nope' });
  assert.deepEqual(parse(await ps([pods], { output: 'yaml' })), pods);
  assert.deepEqual(JSON.parse(await ps([pods], { output: 'json' })), pods);
  assert.equal(await ps([pods], { output: 'json' }), await ps([pods], { json: true }));
  assert.equal(await ps([pods], { output: 'name', selector: 'app!=web' }), 'kube-system/dns\n');
  assert.equal(await ps([pods], { output: 'name', namespace: 'default' }), 'default/web\n');
});

test('ps --watch keeps the columns of the whole list', async () => {
  const long = pod('a-name-that-is-long');
  const [head, , , changed] = (
    await ps([[long, pod('web')], [long, pod('web', { restarts: 1 })], []], { watch: true })
  ).split('\n');
  assert.equal(changed?.indexOf('1/1'), head?.indexOf('READY'));
});

test('ps --watch prints each new or changed pod', async () => {
  const lists = [[pod('web')], [pod('web')], [pod('web', { restarts: 1 }), pod('db')], []];
  const lines = (await ps(lists, { watch: true })).split('\n').map((line) => line.split(/ +/).slice(1, 5).join(' '));
  assert.deepEqual(lines, [
    'NAME READY STATUS RESTARTS',
    'web 1/1 Running 0',
    'web 1/1 Running 1',
    'db 1/1 Running 0',
    '',
  ]);
});
