import assert from 'node:assert/strict';
import { availableParallelism, totalmem } from 'node:os';
import { test } from 'node:test';
import * as v from 'valibot';
import { nodeDetailsSchema } from '#api/node.ts';
import { openAdmin, sendFile, eventsOf } from '../testing/served-admin.ts';

const pod = (name: string, resources: string) => `apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec: { containers: [{ name: main, image: i, resources: ${resources} }] }
---
`;

test('the node says what it has promised to the pods that run, and what is left', async () => {
  await using served = await openAdmin();
  const file = [
    pod('small', '{ limits: { memory: 64Mi, cpu: 500m }, requests: { cpu: 250m, memory: 48Mi } }'),
    pod('large', '{ limits: { memory: 128Mi } }'),
    pod('free', '{}'),
  ].join('');
  const events = eventsOf(await sendFile(served, 'run', file));
  for (let started = 0; started < 3;) {
    const { value } = await events.next();
    if ((value as { detail?: { reason?: string } } | undefined)?.detail?.reason === 'Started') started += 1;
  }
  const { body } = await served.call('GET', '/v1/node');
  const { memory, cpu } = v.parse(nodeDetailsSchema, JSON.parse(body));
  assert.ok(memory !== undefined && memory.availableBytes > 0 && memory.availableBytes <= memory.totalBytes);
  assert.ok(Math.abs(memory.totalBytes - totalmem()) < 2 ** 20);
  assert.deepEqual([memory.reserveBytes, memory.limitsBytes, memory.unlimitedPods], [2 ** 29, 192 * 2 ** 20, 1]);
  assert.equal(memory.requestsBytes, 176 * 2 ** 20); // a request is the limit by default
  const totalMillis = 1000 * availableParallelism();
  assert.deepEqual(cpu, { totalMillis, requestsMillis: 250, limitsMillis: 500, unlimitedPods: 2 });
});
