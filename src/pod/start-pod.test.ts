import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { guestText, rawText } from '#base/guest-text.ts';
import type { FakeBehaviour, FakeContainer } from './testing/fake-container.ts';
import type { FakeSettings } from './testing/fake-sandbox.ts';
import { exitsWith, one, startFakePod } from './testing/started-pod.ts';

test('startPod() reports a machine that could not be made, and leaves nothing', async () => {
  const { running, clock, sandboxes } = startFakePod(one(), {
    runError: new PodvmError('exhausted', 'Cannot run: no memory'),
  });
  assert.deepEqual(await running.finished, {
    exitCode: 125,
    reason: 'FailedCreatePodSandBox',
    message: 'Cannot run: no memory',
  });
  assert.equal(running.status.phase, 'Failed');
  assert.deepEqual(sandboxes.journal, []);
  assert.equal(clock.pending, 0);
});

test('startPod() makes no machine for a pod whose ConfigMap is missing', async () => {
  const { running, sandboxes } = startFakePod(one(', envFrom: [{ configMapRef: { name: none } }]'));
  const finish = await running.finished;
  assert.equal(finish.exitCode, 125);
  assert.match(finish.message ?? '', /Cannot find the ConfigMap default\/none/);
  assert.deepEqual(sandboxes.runs, []);
});

test('startPod() gives a terminal its size before its program can ask', async () => {
  const settings = { behaviours: { a: exitsWith(0) } };
  const { running, sandboxes } = startFakePod(one(', tty: true'), settings, {
    terminalSize: { columns: 77, rows: 33 },
  });
  await running.finished;
  assert.deepEqual(sandboxes.journal.slice(0, 2), ['resize a/0 77x33', 'start a/0']);
  const plain = startFakePod(one(), settings, { terminalSize: { columns: 77, rows: 33 } });
  await plain.running.finished;
  assert.equal(plain.sandboxes.journal[0], 'start a/0');
});

test('startPod() reports a reduced limit once, for the pod or for one container', async () => {
  const a = { ...exitsWith(0), warnings: ['The cpu limit of container a is more'] };
  const cut = (settings: FakeSettings) => startFakePod(one(), { behaviours: { a }, ...settings });
  for (const [settings, message] of [
    [{ warnings: ['The cpu limit of pod web is more'] }, 'The cpu limit of pod web is more'],
    [{}, 'The cpu limit of container a is more'],
  ] as const) {
    const { running } = cut(settings);
    assert.equal((await running.finished).exitCode, 0);
    const said = running.events.filter(({ reason }) => reason === 'LimitCut');
    assert.deepEqual(
      said.map((event) => event.message),
      [message],
    );
  }
});

test('startPod() evaluates a subPathExpr of the pod’s address after the address is known', async () => {
  const mounts = (
    field: string,
  ) => `{ restartPolicy: Never, volumes: [{ name: v, emptyDir: {} }], containers: [{ name: a, image: i,
    env: [{ name: X, valueFrom: { fieldRef: { fieldPath: ${field} } } }],
    volumeMounts: [{ name: v, mountPath: /m, subPathExpr: $(X) }] }] }`;
  const { running } = startFakePod(mounts('status.podIP'), { behaviours: { a: exitsWith(0) } });
  assert.equal((await running.finished).exitCode, 0);
  const none = startFakePod(mounts('status.hostIP'));
  assert.match((await none.running.finished).message ?? '', /no value for X,/);
  assert.deepEqual(none.sandboxes.runs, []);
});

test('startPod() fails the pod when an image is missing, whatever its restart policy', async () => {
  const a = { createError: () => new PodvmError('notFound', 'Cannot pull i: no such image') };
  const { running } = startFakePod('{ containers: [{ name: a, image: i }] }', { behaviours: { a } });
  const finish = await running.finished;
  assert.equal(finish.exitCode, 125);
  assert.equal(finish.reason, 'ErrImagePull');
});

test('startPod() retries with growing delays when a registry does not answer', async () => {
  const createError = (attempt: number) =>
    clockTime() < 30_000 ? new PodvmError('unavailable', `no answer (${attempt})`) : undefined;
  const it = startFakePod(one(), { behaviours: { a: { createError, ...exitsWith(0) } } });
  const begin = it.clock.now();
  const clockTime = () => it.clock.now() - begin;
  await it.clock.advance(29_999);
  assert.equal(it.statusOf('a').state.kind, 'waiting');
  assert.equal(it.statusOf('a').restartCount, 0);
  await it.clock.advance(1);
  assert.deepEqual(await it.running.finished, { exitCode: 0, reason: 'Completed' });
});

test('startPod() fails after ten minutes without the image', async () => {
  const a = { createError: () => new PodvmError('unavailable', 'no answer') };
  const { running, clock } = startFakePod(one(), { behaviours: { a } });
  await clock.advance(609_999);
  assert.equal(running.status.phase, 'Pending');
  await clock.advance(1);
  assert.equal((await running.finished).exitCode, 125);
});

test('startPod() gives up after three tries within half a minute while a client waits for the start', async () => {
  for (const [awaited, policy, isSoon] of [
    ['end', 'Never', true],
    ['end', 'Always', true],
    ['start', 'OnFailure', true],
    ['start', 'Always', false], // it is left to the node, as under a kubelet
  ] as const) {
    let tries = 0;
    const createError = () => {
      tries += 1;
      return new PodvmError('unavailable', 'the registry does not answer');
    };
    const spec = one().replace('Never', policy);
    const { running, clock } = startFakePod(spec, { behaviours: { a: { createError } } }, { awaited });
    await clock.advance(29_999);
    assert.deepEqual([running.status.phase, tries], ['Pending', 2]);
    await clock.advance(1);
    assert.deepEqual([running.status.phase, tries], [isSoon ? 'Failed' : 'Pending', 3]);
    if (!isSoon) await running.kill();
    assert.equal((await running.finished).exitCode, isSoon ? 125 : 143);
  }
});

test('startPod() waits longer for a volume that another pod has, and for an image of a container that has run', async () => {
  const taken = { createError: () => new PodvmError('busy', 'another pod has the volume') };
  const it = startFakePod(one(), { behaviours: { a: taken } }, { awaited: 'end' });
  await it.clock.advance(60_000);
  assert.equal(it.running.status.phase, 'Pending');
  await it.running.kill();
  const gone = (attempt: number) => (attempt === 0 ? undefined : new PodvmError('unavailable', 'no answer'));
  const a = { createError: gone, ...exitsWith(1) };
  const again = startFakePod('{ containers: [{ name: a, image: i }] }', { behaviours: { a } }, { awaited: 'end' });
  await again.clock.advance(60_000);
  assert.equal(again.running.status.phase, 'Running');
  await again.running.kill();
});

test('startPod() reports a command that cannot be started, also where that shows when its container is made', async () => {
  const startError = new PodvmError('notFound', 'Cannot start: no such file');
  for (const a of [{ startError }, { isUnstartable: true }]) {
    const { running, statusOf } = startFakePod(one(), { behaviours: { a } });
    assert.equal((await running.finished).exitCode, 127);
    const { state } = statusOf('a');
    assert.ok(state.kind === 'terminated' && state.reason === 'StartError');
    assert.match(
      running.events.find(({ reason }) => reason === 'Failed')?.message ?? '',
      /Cannot start.*: no such file/,
    );
  }
});

test('startPod() reports a machine that dies', async () => {
  const { running, clock, sandboxes } = startFakePod('{ containers: [{ name: a, image: i }] }');
  await clock.settle();
  sandboxes.crash('the VMM was killed');
  assert.deepEqual(await running.finished, { exitCode: 125, reason: 'SandboxFailed', message: 'the VMM was killed' });
  assert.equal(sandboxes.journal.filter((line) => line.startsWith('start')).length, 1); // no restart in an ended machine
});

test('startPod() reports why its machine ended, then a container’s termination message', async () => {
  for (const [told, message] of [
    ['out of luck', 'the VMM was killed: out of luck'],
    [undefined, 'the VMM was killed'],
  ] as const) {
    const { running, clock, sandboxes, statusOf } = startFakePod(one());
    await clock.settle();
    sandboxes.crash('the VMM was killed', told === undefined ? undefined : guestText(told));
    await running.finished;
    const { state } = statusOf('a');
    assert.ok(state.kind === 'terminated');
    assert.equal(state.message && rawText(state.message), message);
  }
});

test('startPod() kills containers after the grace period of terminate()', async () => {
  const stubborn = { onTerm: () => {} };
  const { running, clock, sandboxes } = startFakePod(one(), { behaviours: { a: stubborn } });
  await clock.settle();
  const finished = running.terminate();
  await clock.advance(29_999);
  assert.deepEqual(sandboxes.running(), ['a']);
  assert.equal(running.status.isTerminating, true);
  await clock.advance(1);
  assert.deepEqual(await finished, { exitCode: 137, reason: 'Terminated' });
});

test('startPod() kills at once at kill(), also in the middle of a grace period', async () => {
  const { running, clock, sandboxes } = startFakePod(one(), { behaviours: { a: { onTerm: () => {} } } });
  await clock.settle();
  void running.terminate();
  await clock.settle();
  assert.equal((await running.kill()).exitCode, 137);
  assert.deepEqual(sandboxes.journal, ['start a/0', 'stop a/0', 'kill a/0', 'exit a/0 137', 'stop sandbox']);
  assert.equal(clock.pending, 0);
});

test('startPod() makes no machine when it is killed before it begins', async () => {
  const { running, sandboxes, signal } = startFakePod(one());
  signal.abort();
  assert.equal((await running.finished).exitCode, 143);
  assert.deepEqual(sandboxes.runs, []);
});

test('startPod() runs preStop inside the grace period and SIGTERM after it', async () => {
  const more = ', lifecycle: { preStop: { sleep: { seconds: 5 } } }';
  const { running, clock, sandboxes } = startFakePod(one(more));
  await clock.settle();
  void running.terminate();
  await clock.advance(4999);
  assert.deepEqual(sandboxes.running(), ['a']);
  await clock.advance(1);
  assert.equal((await running.finished).exitCode, 143);
});

test('startPod() kills a container whose postStart hook fails', async () => {
  const more = ', lifecycle: { postStart: { exec: { command: [hook] } } }';
  const { running, reasons } = startFakePod(one(more), { behaviours: { a: { onExec: () => 1 } } });
  assert.equal((await running.finished).exitCode, 143);
  assert.ok(reasons().includes('FailedPostStartHook'));
});

test('startPod() restarts a container whose liveness probe fails, and reports the reason', async () => {
  let isAlive = true;
  const spec = `{ restartPolicy: OnFailure, containers: [{ name: a, image: x, livenessProbe: { exec: { command: [ok] }, initialDelaySeconds: 5, periodSeconds: 10, failureThreshold: 3 } }] }`;
  const behaviours = { a: { onExec: () => (isAlive ? 0 : 1), onTerm: (it: FakeContainer) => it.exit(0) } };
  const { running, clock, statusOf } = startFakePod(spec, { behaviours });
  await clock.advance(60_000);
  assert.equal(statusOf('a').restartCount, 0);
  isAlive = false;
  await clock.advance(25_000);
  isAlive = true;
  await clock.advance(10_000);
  assert.equal(statusOf('a').restartCount, 1);
  const unhealthy = running.events.filter((event) => event.reason === 'Unhealthy');
  assert.deepEqual(
    unhealthy.map((event) => event.count),
    [3],
  );
  await running.kill();
});

test('startPod() kills a probe that does not answer in time', async () => {
  const spec = `{ containers: [{ name: a, image: x, readinessProbe: { exec: { command: [ok] }, timeoutSeconds: 2, failureThreshold: 1 } }] }`;
  const { running, clock, statusOf, reasons } = startFakePod(spec, { behaviours: { a: { onExec: () => 'hang' } } });
  await clock.advance(1999);
  assert.ok(!reasons().includes('Unhealthy'));
  await clock.advance(1);
  assert.ok(reasons().includes('Unhealthy'));
  assert.equal(statusOf('a').ready, false);
  await running.kill();
});

test('startPod() makes a container ready by its readiness probe, and unready again', async () => {
  let isReady = false;
  const spec = `{ containers: [{ name: a, image: x, readinessProbe: { exec: { command: [ok] }, periodSeconds: 1, failureThreshold: 2, successThreshold: 2 } }] }`;
  const { running, clock, statusOf } = startFakePod(spec, { behaviours: { a: { onExec: () => (isReady ? 0 : 1) } } });
  await clock.advance(1000);
  isReady = true;
  await clock.advance(1000);
  assert.equal(statusOf('a').ready, false);
  await clock.advance(1000);
  assert.equal(statusOf('a').ready, true);
  assert.equal(running.status.conditions.find((it) => it.type === 'Ready')?.status, 'True');
  isReady = false;
  await clock.advance(2000);
  assert.equal(statusOf('a').ready, false);
  await running.kill();
});

test('startPod() ends a pod that is active for too long', async () => {
  const { running, clock } = startFakePod('{ activeDeadlineSeconds: 5, containers: [{ name: a, image: x }] }');
  await clock.advance(5000);
  const finish = await running.finished;
  assert.equal(finish.exitCode, 124);
  assert.equal(finish.reason, 'DeadlineExceeded');
});

test('startPod() delivers all output, over restarts, before it has finished', async () => {
  const outputs: Promise<void>[] = [];
  const onStart = (it: FakeContainer) => {
    outputs.push(it.print(`run ${it.spec.attempt}\n`));
    it.exit(it.spec.attempt < 2 ? 1 : 0);
  };
  const spec = '{ restartPolicy: OnFailure, containers: [{ name: a, image: x }] }';
  const { running, clock } = startFakePod(spec, { behaviours: { a: { onStart } } });
  let text = '';
  let release: (() => void) | undefined;
  running.onOutput(async (container, chunk) => {
    text += `${container}: ${Buffer.from(chunk.bytes).toString()}`;
    await new Promise<void>((resolve) => (release = resolve));
  });
  await clock.advance(60_000);
  assert.equal(text, 'a: run 0\n'); // the listener blocks all output
  release?.();
  await clock.advance(1000);
  release?.();
  await clock.advance(60_000);
  assert.equal(running.status.phase, 'Running');
  release?.();
  assert.equal((await running.finished).exitCode, 0);
  assert.equal(text, 'a: run 0\na: run 1\na: run 2\n');
  await Promise.all(outputs);
});

test('startPod() reports OOMKilled, and the last output if the policy requests it', async () => {
  const a: FakeBehaviour = {
    onStart(it) {
      void it.print('first\nlast words\n');
      it.exit(137, 'OOMKilled');
    },
  };
  const more = ', terminationMessagePolicy: FallbackToLogsOnError';
  const { running, statusOf, reasons } = startFakePod(one(more), { behaviours: { a } });
  assert.deepEqual(await running.finished, { exitCode: 137, reason: 'OOMKilled' });
  const { state } = statusOf('a');
  assert.ok(state.kind === 'terminated');
  assert.equal(state.message && rawText(state.message), 'first\nlast words\n');
  assert.ok(reasons().includes('OOMKilled'));
});

test('remove() ends the pod and removes it, also twice', async () => {
  const { running, clock, sandboxes } = startFakePod(one());
  await clock.settle();
  await running.remove();
  await running.remove();
  assert.deepEqual(sandboxes.running(), []);
  assert.ok(sandboxes.journal.includes('remove sandbox'));
});
