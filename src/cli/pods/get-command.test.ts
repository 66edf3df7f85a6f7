import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import type { ObjectSummary } from '#api/objects.ts';
import type { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { getCommand, type GetOptions } from './get-command.ts';

const object = (kind: ObjectSummary['kind'], name: string, more: Partial<ObjectSummary> = {}): ObjectSummary => ({
  ...{ kind, name, namespace: 'default', status: '1/1 ready', labels: { app: name }, pods: [`${name}-0`] },
  ...more,
});
const objects = [
  object('Deployment', 'web'),
  object('CronJob', 'dump', { namespace: 'shop', status: '@daily, running' }),
  object('Service', 'web', { pods: [], labels: {} }),
];

async function get(options: Partial<GetOptions>, answer: () => unknown = () => objects) {
  let stdout = '';
  const client = { get: async (_: string, schema: v.GenericSchema) => v.parse(schema, answer()) };
  const terminal = { stdout: new PassThrough().on('data', (text: Buffer) => (stdout += text.toString())) };
  const given = { kinds: undefined, name: undefined, output: 'table', ...options } as const;
  const { signal } = new AbortController();
  await getCommand(client as unknown as Client, given, terminal as unknown as Terminal, signal); // SAFE: all that it uses
  return stdout;
}

test('get lists objects, chosen by kind, name, namespace and labels', async () => {
  assert.match(
    await get({}),
    /^NAMESPACE +KIND +NAME +STATUS\ndefault +Deployment +web +1\/1 ready\nshop +CronJob +dump +@daily, running\ndefault +Service +web +1\/1 ready\n$/,
  );
  const named = async (options: Partial<GetOptions>) => await get({ output: 'name', ...options });
  assert.equal(await named({ kinds: 'cj' }), 'CronJob shop/dump\n');
  for (const kinds of ['deploy,svc', 'Deployments,services', 'deployment,Service'])
    assert.equal(await named({ kinds }), 'Deployment default/web\nService default/web\n', kinds);
  assert.equal(await named({ kinds: 'all', selector: 'app=web' }), 'Deployment default/web\n');
  assert.equal(await named({ namespace: 'shop' }), 'CronJob shop/dump\n');
  assert.equal(await named({ kinds: 'svc', name: 'default/web' }), 'Service default/web\n');
  assert.match(await get({ output: 'wide' }), /PODS +LABELS\ndefault +Deployment .* web-0 +app=web\n/);
  assert.deepEqual(JSON.parse(await get({ json: true })), objects);
});

test('get says what it cannot list or find', async () => {
  const fix = async (kinds: string) => await get({ kinds }).then(String, (error: PodvmError) => error.fix);
  assert.match((await fix('configmaps')) ?? '', /podvm inspect/);
  assert.match((await fix('nodes')) ?? '', /podvm info/);
  assert.match((await fix('constructor')) ?? '', /CronJob/);
  assert.match((await fix('svc,po')) ?? '', /podvm ps/);
  await assert.rejects(get({ kinds: 'cronjob', name: 'web' }), { message: 'Cannot find cronjob web' });
  assert.equal(await get({}, () => []), 'NAMESPACE   KIND   NAME   STATUS\n');
});
