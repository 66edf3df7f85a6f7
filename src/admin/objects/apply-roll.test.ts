import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import * as v from 'valibot';
import { podSummarySchema } from '#api/pods.ts';
import { poll } from '#host/wait.ts';
import { eventsOf, openAdmin, sendFile, type Served } from '../testing/served-admin.ts';

/** Pods that never become ready. */
const filesOf = (kind: 'Deployment' | 'StatefulSet', image = 'i') => `
apiVersion: apps/v1
kind: ${kind}
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 30
      containers: [{ name: main, image: ${image}, readinessProbe: { exec: { command: ['false'] } } }]
`;

async function begin(served: Served, verb: 'apply' | 'delete', text: string) {
  const socket = await sendFile(served, verb, text);
  return { socket, events: Array.fromAsync(eventsOf(socket)) };
}
const pods = async (served: Served) =>
  v.parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', '/v1/pods')).body)).map(({ name }) => name);
async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const found = await poll(async () => (await isSo()) || undefined, {
    everyMs: 2,
    signal: AbortSignal.timeout(60_000),
  });
  assert.ok(found);
}
const isNotReady = { behaviours: { main: { onExec: () => 1, onTerm: () => {} } } };

describe('a roll', () => {
  test('ends with its client, also when that has left before the wait for a pod', async () => {
    await using served = await openAdmin(isNotReady);
    const { sandboxes, clock } = served.parts;
    await (
      await begin(served, 'apply', filesOf('Deployment'))
    ).events;
    const { socket } = await begin(served, 'apply', filesOf('Deployment', 'j'));
    await until(() => sandboxes.journal.includes('stop main/0'));
    socket.terminate();
    await clock.advance(30_000);
    const idle = served.server.idle().then(() => 'idle');
    assert.equal(await Promise.race([idle, setTimeout(60_000, 'still at work', { ref: false })]), 'idle');
    assert.deepEqual(await pods(served), ['web-1', 'web-0']);
  });

  test('says that a pod has ended before it was ready', async () => {
    await using served = await openAdmin({ behaviours: { main: { onExec: () => 1 } } });
    const { events } = await begin(served, 'apply', filesOf('StatefulSet'));
    await until(async () => (await pods(served)).length > 0);
    await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
    const told = await events;
    assert.deepEqual(told.at(-1), { event: 'finished', exitCode: 124 });
    assert.match(
      JSON.stringify(told),
      /default\/web-0 has ended before it was ready: the pods after it stay as they are/,
    );
    assert.deepEqual(await pods(served), []);
  });

  test('starts no more pods after a delete or drain, and is told so', async () => {
    for (const end of [
      async (served: Served) => void (await (await begin(served, 'delete', filesOf('Deployment', 'j'))).events),
      async (served: Served) => void (await served.call('POST', '/v1/drain', '{}')),
    ]) {
      await using served = await openAdmin(isNotReady);
      const { sandboxes, clock } = served.parts;
      await (
        await begin(served, 'apply', filesOf('Deployment'))
      ).events;
      const { events } = await begin(served, 'apply', filesOf('Deployment', 'j'));
      await until(() => sandboxes.journal.includes('stop main/0'));
      const starts = sandboxes.runs.length;
      const ended = end(served);
      await until(() => sandboxes.journal.filter((line) => line === 'stop main/0').length === 2);
      await clock.advance(30_000);
      await ended;
      assert.match(JSON.stringify((await events).at(-1)), /Cannot go on with Deployment default\/web: a later command/);
      assert.deepEqual(await pods(served), []);
      assert.equal(sandboxes.runs.length, starts);
    }
  });

  test('yields to a later apply of the same object', async () => {
    await using served = await openAdmin(isNotReady);
    const { sandboxes, clock } = served.parts;
    const one = (image: string) => filesOf('Deployment', image).replace('replicas: 2', 'replicas: 1');
    await (
      await begin(served, 'apply', one('i'))
    ).events;
    const { events } = await begin(served, 'apply', one('j'));
    await until(() => sandboxes.journal.includes('stop main/0'));
    const { socket } = await begin(served, 'apply', filesOf('Deployment', 'k')); // has web-1 before it replaces web-0
    await until(() => sandboxes.runs.length === 2);
    await clock.advance(30_000);
    assert.match(JSON.stringify((await events).at(-1)), /a later command has changed it/);
    await until(() => sandboxes.runs.length === 3);
    assert.deepEqual(
      sandboxes.runs.map(({ images }) => images),
      [['i'], ['k'], ['k']],
    );
    socket.terminate();
  });
});
