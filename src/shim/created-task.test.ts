import assert from 'node:assert/strict';
import { test } from 'node:test';
import { poll } from '#host/wait.ts';
import { Task } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from './schema/generated/types/task/task_pb.ts';
import { containerSpec, singleSpec } from './testing/bundles.ts';
import { openShim, type ServedShim } from './testing/served-shim.ts';

const soon = { ms: 60_000 };
const verbs = Task.method;
const untilTold = async (shim: ServedShim, topic: string) =>
  assert.ok(
    await poll(() => Promise.resolve(shim.told.includes(topic) || undefined), {
      everyMs: 5,
      signal: AbortSignal.timeout(soon.ms),
    }),
    topic,
  );
const calls = ({ parts }: ServedShim, name: string) => parts.guest.calls.filter(({ method }) => method === name);

test('a container is made by its creation, and only started by its start', async () => {
  await using shim = await openShim();
  const { client } = shim;
  await shim.pod();
  await shim.created('box-1');
  assert.equal(calls(shim, 'createContainer').length, 1);
  assert.equal(calls(shim, 'startContainer').length, 0);
  assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.CREATED);
  const spec = { typeUrl: 'x', value: Buffer.from(JSON.stringify(containerSpec.process)) };
  await assert.rejects(client.call(verbs.exec, { id: 'box-1', execId: 'e1', spec }, soon), {
    kind: 'failedPrecondition',
    message: /it is created/,
  });
  const before = shim.parts.guest.calls.length;
  await client.call(verbs.start, { id: 'box-1' }, soon);
  assert.deepEqual(
    shim.parts.guest.calls.slice(before).map(({ method }) => method),
    ['startContainer'],
  );
});

test('the ports of a pod are forwarded when its first container has started, and once', async () => {
  await using shim = await openShim();
  await shim.pod();
  await shim.created('box-1');
  assert.deepEqual(shim.forwarded, [], 'that would delay the container');
  await shim.client.call(verbs.start, { id: 'box-1' }, soon);
  const isForwarded = (times: number) => () => Promise.resolve(shim.forwarded.length === times || undefined);
  const reaches = async (times: number) =>
    assert.ok(await poll(isForwarded(times), { everyMs: 5, signal: AbortSignal.timeout(soon.ms) }));
  await reaches(1);
  await shim.container('box-2');
  await shim.client.call(verbs.state, { id: 'box-2' }, soon);
  await reaches(1);
  await shim.end();
  await shim.next();
  await reaches(2);
});

test('a container has started when connections to the ports of its pod wait for their listener', async () => {
  await using shim = await openShim();
  const { promise, resolve } = Promise.withResolvers<void>();
  shim.held.push(promise);
  await shim.pod();
  await shim.created('box-1');
  let isAnswered = false;
  const started = shim.client.call(verbs.start, { id: 'box-1' }, soon).then(() => (isAnswered = true));
  await untilTold(shim, '/tasks/start box-1');
  await shim.client.call(verbs.state, { id: 'box-1' }, soon);
  assert.equal(isAnswered, false);
  resolve();
  await started;
});

for (const [which, spec] of Object.entries({ 'of a pod': containerSpec, 'without a pod': singleSpec })) {
  test(`a container ${which} that was never started is deleted, and its exit is told before`, async () => {
    await using shim = await openShim();
    const { client } = shim;
    if (spec === containerSpec) await shim.pod();
    await shim.created('box-1', spec);
    assert.equal((await client.call(verbs.delete, { id: 'box-1' }, soon)).exitStatus, 137);
    await assert.rejects(client.call(verbs.state, { id: 'box-1' }, soon), { kind: 'notFound' });
    await untilTold(shim, '/tasks/delete box-1');
    assert.deepEqual(
      shim.told.filter((topic) => topic.endsWith('box-1')),
      ['create', 'exit', 'delete'].map((topic) => `/tasks/${topic} box-1`),
    );
    await shim.container('box-1', spec);
  });

  test(`a container ${which} that was never started is killed, and cannot be started then`, async () => {
    await using shim = await openShim();
    const { client } = shim;
    if (spec === containerSpec) await shim.pod();
    await shim.created('box-1', spec);
    const waiting = client.call(verbs.wait, { id: 'box-1' }, soon);
    await client.call(verbs.kill, { id: 'box-1', signal: 9 }, soon);
    assert.equal((await waiting).exitStatus, 137);
    await assert.rejects(client.call(verbs.start, { id: 'box-1' }, soon), { kind: 'failedPrecondition' });
    await client.call(verbs.delete, { id: 'box-1' }, soon);
  });

  test(`a container ${which} that was only created is started by the next daemon`, async () => {
    await using shim = await openShim();
    const { client } = shim;
    const io = await shim.io('box');
    if (spec === containerSpec) await shim.pod();
    const guestId = await shim.created('box-1', spec, io.paths);
    await shim.end();
    assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.CREATED, 'as the keeper says');
    await shim.next();
    assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.CREATED);
    await client.call(verbs.start, { id: 'box-1' }, soon);
    assert.equal((await client.call(verbs.state, { id: 'box-1' }, soon)).status, Status.RUNNING);
    const attached = calls(shim, 'attach').at(-1);
    assert.ok(attached !== undefined);
    const { stdout, stderr } = attached.params['stdio'] as { stdout: number; stderr: number };
    shim.parts.guest.stream(stdout).end('hello\n');
    shim.parts.guest.stream(stderr).end();
    shim.exit(guestId, 4);
    assert.equal((await client.call(verbs.wait, { id: 'box-1' }, soon)).exitStatus, 4);
    assert.equal(await io.stdout(), 'hello\n');
  });
}
