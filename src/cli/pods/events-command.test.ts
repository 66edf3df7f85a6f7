import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import { parse } from 'yaml';
import type { NodeEvent } from '#api/pods.ts';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { eventsCommand } from './events-command.ts';

const event = (name: string, at = '2026-01-01T00:00:00Z'): NodeEvent => ({
  ...{ namespace: 'default', name, at, type: 'Normal' },
  ...{ reason: 'Started', message: `Started ${name}` },
});
const pod = (name: string, app: string) => ({
  ...{ namespace: 'default', name, phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
  labels: { app },
});
type Form = Parameters<typeof eventsCommand>[2];

/** What the command prints of these events, and how often it lists the pods. */
async function printed(events: readonly NodeEvent[], lists: readonly unknown[], options: Partial<Form>) {
  let looks = 0;
  const client = {
    get: async (_: string, schema: v.GenericSchema) => v.parse(schema, lists[looks++]),
    stream: async () => Readable.from(events.map((each) => Buffer.from(`${JSON.stringify(each)}\n`))),
  };
  let stdout = '';
  const terminal = { stdout: new PassThrough().on('data', (text: Buffer) => (stdout += text.toString())) };
  const form = { follow: false, watch: false, output: 'text', json: false, ...options } as const;
  // SAFE: all that it uses
  await eventsCommand(client as unknown as Client, undefined, form, terminal as unknown as Terminal);
  return { stdout, looks };
}

test('events of pods with labels are chosen, also of pods that are made meanwhile', async () => {
  const lists = [
    [pod('web', 'a'), pod('db', 'b')],
    [pod('web', 'a'), pod('db', 'b'), pod('late', 'a')],
  ];
  const later = new Date(Date.now() + 60_000).toISOString();
  const events = [event('web'), event('db'), event('late', later)];
  const { stdout } = await printed(events, lists, { selector: 'app=a' });
  assert.deepEqual(stdout.match(/Started \w+\n/g), ['Started web\n', 'Started late\n']);
});

test('the pods are not listed for each event of one that was removed', async () => {
  const events = Array.from({ length: 100 }, () => event('gone'));
  assert.deepEqual(await printed(events, [[pod('web', 'a')]], { selector: 'app=a' }), { stdout: '', looks: 1 });
});

test('with -o yaml all events are one list', async () => {
  const events = [event('web'), event('db')];
  const { stdout } = await printed(events, [], { output: 'yaml' });
  assert.deepEqual(parse(stdout), events);
});

test('with -o wide each event is one line with its namespace and fix, with -o name each pod is named once', async () => {
  const failed = { ...event('web'), type: 'Warning', reason: 'Failed', message: 'no image', fix: 'Check it.' } as const;
  const { stdout } = await printed([failed], [], { output: 'wide' });
  assert.equal(stdout, '2026-01-01T00:00:00Z  Warning  Failed  default/web  no image; fix: Check it.\n');
  const events = [event('web'), event('db'), event('web')];
  assert.equal((await printed(events, [], { output: 'name' })).stdout, 'default/web\ndefault/db\n');
});
