import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'node:test';
import * as v from 'valibot';
import type { NodeEvent } from '#api/pods.ts';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { eventsCommand } from './events-command.ts';

const event = (name: string): NodeEvent => ({
  ...{ namespace: 'default', name, at: '2026-01-01T00:00:00Z', type: 'Normal' },
  ...{ reason: 'Started', message: `Started ${name}` },
});
const pod = (name: string, app: string) => ({
  ...{ namespace: 'default', name, phase: 'Running', ready: '1/1', restarts: 0, createdAt: '', addresses: [] },
  labels: { app },
});

test('events of pods with labels are chosen, also of pods that are made meanwhile', async () => {
  const lists = [
    [pod('web', 'a'), pod('db', 'b')],
    [pod('web', 'a'), pod('db', 'b'), pod('late', 'a')],
    [pod('web', 'a')],
  ];
  let looks = 0;
  const client = {
    get: async (_: string, schema: v.GenericSchema) => v.parse(schema, lists[looks++]),
    stream: async () =>
      Readable.from(['web', 'db', 'late', 'gone'].map((name) => Buffer.from(`${JSON.stringify(event(name))}\n`))),
  };
  let stdout = '';
  const terminal = { stdout: new PassThrough().on('data', (text: Buffer) => (stdout += text.toString())) };
  const options = { follow: false, watch: false, output: 'text', json: false, selector: 'app=a' } as const;
  // SAFE: all that it uses
  await eventsCommand(client as unknown as Client, undefined, options, terminal as unknown as Terminal);
  assert.deepEqual(stdout.match(/Started \w+\n/g), ['Started web\n', 'Started late\n']);
});
