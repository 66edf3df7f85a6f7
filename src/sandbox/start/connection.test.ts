import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import type { Method } from '#wire/messages.ts';
import { containerSpec, sandboxSpec } from '../testing/examples.ts';
import { is, never, openFakeSandboxes } from '../testing/fake-sandboxes.ts';

const refusal = new PodvmError('failedPrecondition', 'Cannot add route 10.0.0.0/8: the kernel answered errno 22');
const refused = (error: unknown) => {
  assert.equal((error as Error).message, refusal.message);
  return is('failedPrecondition')(error);
};

/** Sandboxes whose guests are connected when the test says so. */
async function openConnecting() {
  const place = await openFakeSandboxes();
  const { promise, resolve: connect, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined);
  place.parts.before = async (step) => {
    if (step === 'call configure') place.parts.guest.delays.set('connect', promise);
  };
  const called = (method: Method) => place.parts.guest.calls.some((call) => call.method === method);
  return { ...place, connect, refuse: (error = refusal) => reject(error), called };
}

test('a container is made while its guest is connected, and starts after that', async () => {
  await using place = await openConnecting();
  const caller = new AbortController();
  const sandbox = await place.sandboxes.run(sandboxSpec, caller.signal);
  caller.abort(); // its call was answered
  const container = await sandbox.createContainer(containerSpec, never);
  const started = container.start(never);
  const dialled = sandbox.dial(80, undefined, never);
  await sandbox.stats(never); // calls that were made before have arrived
  assert.equal(container.status.state, 'created');
  assert.deepEqual([place.called('startContainer'), place.called('dial')], [false, false]);
  const stepsOf = () => sandbox.status.phases.map(({ name }) => name);
  assert.ok(!stepsOf().includes('guest connected'));
  const total = sandbox.status.phases.at(-1);
  place.connect();
  await started;
  assert.equal(container.status.state, 'running');
  await assert.rejects(dialled, is('unavailable')); // nothing listens
  assert.ok(stepsOf().includes('guest connected'));
  assert.deepEqual(sandbox.status.phases.at(-1), total);
  const counts = new Map(place.sandboxes.counts.phases);
  assert.deepEqual([counts.get('guest connected')?.count, counts.get('total')?.count], [1, 1]);
});

test('a guest that cannot be connected fails its sandbox, and the start that waits for it with the same words', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const container = await sandbox.createContainer(containerSpec, never);
  const idle = await sandbox.createContainer({ ...containerSpec, name: 'idle' }, never);
  const started = container.start(never);
  place.refuse();
  await assert.rejects(started, refused);
  const { state, failure } = await sandbox.ended;
  assert.equal(state, 'failed');
  assert.match(failure ?? '', /^Cannot add route 10\.0\.0\.0\/8: the kernel answered errno 22/);
  assert.equal(container.status.exit?.reason, 'StartError');
  assert.equal((await idle.exited).reason, 'SandboxFailed');
  await assert.rejects(idle.start(never), /Cannot start container idle: it is exited \(Cannot add route /);
  await assert.rejects(sandbox.createContainer(containerSpec, never), /the sandbox is failed \(Cannot add route /);
  assert.deepEqual([...place.parts.alive], []);
});

test('a guest that cannot be connected fails a sandbox without containers, too', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  place.refuse();
  assert.equal((await sandbox.ended).state, 'failed');
  assert.equal(place.sandboxes.counts.failures, 1);
});

test('a guest that answers as a lost link would, and goes on, fails its sandbox', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  place.refuse(new PodvmError('unavailable', refusal.message));
  assert.equal((await within(sandbox.ended, { ms: 10_000 }))?.state, 'failed');
  assert.match(sandbox.status.failure ?? '', /^Cannot add route /);
  assert.deepEqual([...place.parts.alive], []);
});

test('a machine that ends while its guest is connected says why', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  place.parts.killMachine('QEMU was killed by SIGKILL');
  assert.match((await sandbox.ended).failure ?? '', /^QEMU was killed by SIGKILL/);
  assert.deepEqual([...place.parts.alive], []);
});

test('a start that its caller cancels while it waits for its guest fails with the reason of the caller', async () => {
  await using place = await openConnecting();
  const caller = new AbortController();
  const spec = { ...sandboxSpec, sysctls: { 'net.core.somaxconn': '1' } };
  const running = place.sandboxes.run(spec, caller.signal);
  running.catch(() => undefined);
  while (!place.parts.alive.has('link') || !place.called('connect')) await new Promise(setImmediate);
  const left = new PodvmError('cancelled', 'the caller left');
  caller.abort(left);
  await assert.rejects(running, (error) => error === left);
  assert.deepEqual([...place.parts.alive], []);
});

test('a container that is stopped while its guest is connected does not start', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const container = await sandbox.createContainer(containerSpec, never);
  const started = container.start(never);
  started.catch(() => undefined);
  await container.stop(0, never);
  place.connect();
  await assert.rejects(started, { message: `Cannot start container ${containerSpec.name}: stopped before it started` });
  assert.equal(place.called('startContainer'), false);
  assert.equal(sandbox.status.state, 'ready');
});

test('the start of a pod that names sysctls waits for its guest, whose kernel may refuse them', async () => {
  const spec = { ...sandboxSpec, sysctls: { 'net.core.somaxconn': '1' } };
  await using place = await openConnecting();
  let hasStarted = false;
  const running = place.sandboxes.run(spec, never).finally(() => (hasStarted = true));
  running.catch(() => undefined);
  while (!place.parts.alive.has('link') || !place.called('connect')) await new Promise(setImmediate);
  await place.parts.guest.told();
  assert.equal(hasStarted, false);
  place.refuse();
  await assert.rejects(running, refused);
  assert.deepEqual([...place.parts.alive], []);
});

for (const end of ['stop', 'remove'] as const) {
  test(`${end}() does not wait for a guest that is being connected, and ends a start that does`, async () => {
    await using place = await openConnecting();
    const sandbox = await place.sandboxes.run(sandboxSpec, never);
    const container = await sandbox.createContainer(containerSpec, never);
    const said = `Cannot start container ${containerSpec.name}: stopped before it started`;
    const started = assert.rejects(container.start(never), { kind: 'cancelled', message: said });
    if (end === 'stop') await sandbox.stop(0);
    else await sandbox.remove();
    await started;
    assert.equal(sandbox.status.state, 'stopped');
    assert.equal(place.called('startContainer'), false);
    const removals = place.parts.guest.calls.filter(({ method }) => method === 'removeContainer');
    assert.equal(removals.length, 1, 'a second one would fail with the link, and be logged as an error');
    assert.deepEqual([...place.parts.alive], []);
  });
}

test('a start whose caller leaves while the guest is being connected never happens', async () => {
  await using place = await openConnecting();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const container = await sandbox.createContainer(containerSpec, never);
  const caller = new AbortController();
  const started = container.start(caller.signal);
  caller.abort(new PodvmError('cancelled', 'the caller left'));
  await assert.rejects(started, is('cancelled'));
  place.connect();
  await sandbox.stats(never);
  assert.equal(container.status.exit?.reason, 'StartError');
  assert.equal(place.called('startContainer'), false);
  assert.equal(sandbox.status.state, 'ready');
});
