import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FakeContainer } from './testing/fake-container.ts';
import { exitsWith, startFakePod } from './testing/started-pod.ts';

test('startPod() fails the pod when an init container fails and may not be restarted', async () => {
  const spec = `{ restartPolicy: Never, initContainers: [{ name: i, image: x }], containers: [{ name: a, image: x }] }`;
  const { running, sandboxes } = startFakePod(spec, { behaviours: { i: exitsWith(3) } });
  assert.equal((await running.finished).exitCode, 3);
  assert.deepEqual(sandboxes.journal, ['start i/0', 'exit i/0 3', 'stop sandbox']);
});

test('startPod() has the exit code of the first failing container', async () => {
  const spec = `{ restartPolicy: Never, containers: [{ name: a, image: x }, { name: b, image: x }, { name: c, image: x }] }`;
  const { running, clock, sandboxes } = startFakePod(spec);
  await clock.settle();
  sandboxes.current('a').exit(0);
  await clock.advance(1000);
  sandboxes.current('c').exit(7);
  await clock.advance(1000);
  assert.equal(running.status.phase, 'Running');
  sandboxes.current('b').exit(1);
  assert.deepEqual(await running.finished, { exitCode: 7, reason: 'Error' });
});

test('startPod() runs init containers in their order, each until it succeeds, and then the main containers', async () => {
  const spec = `{ initContainers: [{ name: i, image: x }, { name: j, image: x }], containers: [{ name: a, image: x }], restartPolicy: OnFailure }`;
  const flaky = { onStart: (it: FakeContainer) => it.exit(it.spec.attempt === 0 ? 1 : 0) };
  const { running, sandboxes } = startFakePod(spec, { behaviours: { i: flaky, j: exitsWith(0), a: exitsWith(0) } });
  assert.equal((await running.finished).exitCode, 0);
  const starts = sandboxes.journal.filter((line) => line.startsWith('start'));
  assert.deepEqual(starts, ['start i/0', 'start i/1', 'start j/0', 'start a/0']);
});

test('startPod() restarts a crashing container at once, then after 10 s, 20 s, 40 s', async () => {
  const { clock, sandboxes, statusOf, reasons, running } = startFakePod('{ containers: [{ name: a, image: x }] }', {
    behaviours: { a: exitsWith(1) },
  });
  const starts = () => sandboxes.journal.filter((line) => line.startsWith('start')).length;
  await clock.settle();
  assert.equal(starts(), 2);
  assert.deepEqual(statusOf('a').state, { kind: 'waiting', reason: 'CrashLoopBackOff' });
  for (const [seconds, expected] of [
    [10, 3],
    [20, 4],
    [40, 5],
  ] as const) {
    await clock.advance(seconds * 1000 - 1);
    assert.equal(starts(), expected - 1);
    await clock.advance(1);
    assert.equal(starts(), expected);
  }
  assert.equal(statusOf('a').restartCount, 5);
  assert.ok(reasons().includes('BackOff'));
  assert.equal((await running.terminate()).exitCode, 1);
  assert.equal(clock.pending, 0);
});

for (const jumpMs of [3_600_000, -3_600_000]) {
  test(`startPod() waits as long for restarts and deadlines when the date jumps by ${jumpMs / 1000} s`, async () => {
    const { clock, sandboxes, statusOf, running } = startFakePod(
      '{ activeDeadlineSeconds: 60, containers: [{ name: a, image: x }] }',
      { behaviours: { a: exitsWith(1) } },
    );
    const starts = () => sandboxes.journal.filter((line) => line.startsWith('start')).length;
    await clock.settle();
    assert.equal(starts(), 2);
    clock.setDate(clock.now() + jumpMs);
    await clock.advance(9_999);
    assert.equal(starts(), 2);
    await clock.advance(1);
    assert.equal(starts(), 3);
    assert.equal(statusOf('a').restartCount, 3);
    await clock.advance(49_999);
    assert.equal(running.status.phase, 'Running');
    await clock.advance(1);
    assert.equal((await running.finished).reason, 'DeadlineExceeded');
    assert.equal(clock.pending, 0);
  });
}

test('startPod() resets the back-off after ten minutes without a failure', async () => {
  const { clock, sandboxes, running } = startFakePod('{ containers: [{ name: a, image: x }] }');
  const crash = async () => {
    sandboxes.current('a').exit(1);
    await clock.settle();
  };
  await clock.settle();
  await crash();
  await crash();
  assert.deepEqual(sandboxes.running(), []);
  await clock.advance(10_000);
  await clock.advance(600_000);
  await crash();
  assert.deepEqual(sandboxes.running(), ['a']);
  await running.kill();
});

const withSidecars = `{
  restartPolicy: Never,
  initContainers: [
    { name: s, image: x, restartPolicy: Always, startupProbe: { exec: { command: [up] }, periodSeconds: 1, failureThreshold: 100 } },
    { name: i, image: x },
    { name: t, image: x, restartPolicy: Always } ],
  containers: [{ name: a, image: x }] }`;

test('startPod() waits for a sidecar to start, restarts it, and stops sidecars last in reverse order', async () => {
  let isUp = false;
  const behaviours = { s: { onExec: () => (isUp ? 0 : 1) }, i: exitsWith(0) };
  const { running, clock, sandboxes, statusOf } = startFakePod(withSidecars, { behaviours });
  await clock.advance(2500);
  assert.deepEqual(sandboxes.running(), ['s']);
  isUp = true;
  await clock.advance(1000);
  assert.deepEqual(sandboxes.running(), ['s', 't', 'a']);
  sandboxes.current('t').exit(0);
  await clock.settle();
  assert.equal(statusOf('t').restartCount, 1);
  sandboxes.current('a').exit(0);
  assert.deepEqual(await running.finished, { exitCode: 0, reason: 'Completed' });
  assert.deepEqual(sandboxes.journal.slice(-6), [
    'exit a/0 0',
    'stop t/1',
    'exit t/1 143',
    'stop s/0',
    'exit s/0 143',
    'stop sandbox',
  ]);
});
