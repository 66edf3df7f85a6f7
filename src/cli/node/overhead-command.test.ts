import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { overheadText, runtimeClassOf } from './overhead-command.ts';

const mib = 1024 * 1024;
const pods = [
  { namespace: 'default', name: 'idle', memoryBytes: 80.2 * mib, cpuMillis: 4.2 },
  { namespace: 'default', name: 'busy', memoryBytes: 90.1 * mib, cpuMillis: 400 },
  { namespace: 'shop', name: 'new', memoryBytes: -3 * mib, cpuMillis: 2 },
];

test('the overhead of a RuntimeClass is the maximum memory and the median processor time', () => {
  const parsed: unknown = parse(runtimeClassOf(pods));
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
