import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { parse } from 'yaml';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { overheadCommand, overheadText, runtimeClassOf, runtimeClassText } from './overhead-command.ts';

const mib = 1024 * 1024;
const pods = [
  { namespace: 'default', name: 'idle', memoryBytes: 80.2 * mib, cpuMillis: 4.2 },
  { namespace: 'default', name: 'busy', memoryBytes: 90.1 * mib, cpuMillis: 400 },
  { namespace: 'shop', name: 'new', memoryBytes: -3 * mib, cpuMillis: 2 },
];

test('the overhead of a RuntimeClass is the maximum memory and the median processor time', () => {
  const parsed: unknown = parse(runtimeClassText(pods));
  assert.deepEqual(parsed, runtimeClassOf(pods));
  assert.deepEqual(parsed, {
    apiVersion: 'node.k8s.io/v1',
    kind: 'RuntimeClass',
    metadata: { name: 'podvm' },
    handler: 'podvm',
    overhead: { podFixed: { memory: '91Mi', cpu: '5m' } },
  });
  assert.match(overheadText(pods), /^default\/busy +90\.1 MiB +400\.0m$/m);
  assert.match(overheadText(pods), /memory 91Mi, cpu 5m/);
});

test('without a pod there is nothing to measure, which is reported', () => {
  assert.throws(() => runtimeClassOf([]), { kind: 'failedPrecondition', fix: /podvm run/ });
});

test('-o json prints the RuntimeClass as JSON', async () => {
  let said = '';
  const stdout = new Writable({ write: (text: Buffer, _encoding, done) => done(void (said += text.toString())) });
  const client = { get: async () => pods };
  // SAFE: all that the command uses
  await overheadCommand(client as unknown as Client, 'json', { stdout } as unknown as Terminal);
  assert.deepEqual(JSON.parse(said), runtimeClassOf(pods));
});
