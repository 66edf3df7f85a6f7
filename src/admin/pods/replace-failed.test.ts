import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { podSummarySchema } from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import { openAdmin, run, type Served, talk } from '../testing/served-admin.ts';

const text = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: main, image: i }] }
`;

async function apply(served: Served, files = text, exitCode = 0): Promise<void> {
  assert.equal((await talk(served, 'apply', files)).last?.['exitCode'], exitCode);
}
const states = async (served: Served) =>
  v
    .parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', '/v1/pods?ended=true')).body))
    .map(({ phase, endedAt }) => (endedAt === undefined ? phase : 'ended'));
/** Waits in real time: ends of pods are recorded while the fake clock stands still. */
async function until(served: Served, state: string): Promise<void> {
  const found = await poll(async () => (await states(served)).join() === state || undefined, {
    everyMs: 2,
    signal: AbortSignal.timeout(60_000),
  });
  assert.ok(found, `${state}, got ${(await states(served)).join()}`);
}

/** Waits until the pod has ended and its next start is due. */
async function untilFailed(served: Served): Promise<void> {
  await until(served, 'ended');
  const isDue = async () => served.parts.clock.pending > 0 || undefined;
  assert.ok(await poll(isDue, { everyMs: 2, signal: AbortSignal.timeout(60_000) }), 'no start is due');
}

test('a pod that was applied is started again when its machine has failed, later each time', async () => {
  await using served = await openAdmin();
  const { sandboxes, clock } = served.parts;
  await apply(served);
  for (const seconds of [10, 20, 40]) {
    sandboxes.crash('the VMM was killed');
    await untilFailed(served);
    await clock.advance(seconds * 1000 - 1);
    assert.deepEqual(await states(served), ['ended']);
    await clock.advance(1);
    await until(served, 'Running');
  }
});

test('a start after a failure that gets no machine is tried again, but not the start of an apply', async () => {
  const short = new PodvmError('exhausted', 'Cannot make a sandbox: memory is short');
  let error: PodvmError | undefined;
  await using served = await openAdmin({ runError: () => error });
  const { sandboxes, clock } = served.parts;
  await apply(served);
  error = short;
  sandboxes.crash('the VMM was killed');
  for (const seconds of [10, 20]) {
    await untilFailed(served);
    await clock.advance(seconds * 1000);
  }
  await untilFailed(served);
  error = undefined;
  await clock.advance(40_000);
  await until(served, 'Running');
  await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
  error = short;
  await apply(served, text, 125);
  error = undefined;
  await clock.advance(400_000);
  assert.deepEqual(await states(served), ['ended']);
});

test('so is one that a user started and apply found as it should be, also by the next process', async () => {
  const first = await openAdmin();
  await apply(first);
  await first.call('POST', '/v1/pods/_/web-0/stop', '{}');
  await first.call('POST', '/v1/pods/_/web-0/start');
  await apply(first);
  first.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(first);
  await first.parts.clock.advance(10_000);
  await until(first, 'Running');
  await first.call('POST', '/v1/pods/_/web-0/stop', '{}');
  await first.call('POST', '/v1/pods/_/web-0/start');
  await apply(first);
  await using second = await first.next({}, () => first.parts.sandboxes.crash('the VMM was killed'));
  await untilFailed(second);
  await second.parts.clock.advance(10_000);
  await until(second, 'Running');
});

test('also by the next process, when the machine has failed in between', async () => {
  const first = await openAdmin();
  await apply(first);
  await using second = await first.next({}, () => first.parts.sandboxes.crash('the VMM was killed'));
  await untilFailed(second);
  await second.parts.clock.advance(10_000);
  await until(second, 'Running');
});

test('a start that is due when the process ends is due again in the next one, after the same delay', async () => {
  const first = await openAdmin();
  await apply(first);
  first.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(first);
  await first.parts.clock.advance(10_000);
  await until(first, 'Running');
  first.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(first);
  const second = await first.next();
  assert.deepEqual(await states(second), ['ended']);
  await second.parts.clock.advance(20_000 - 1);
  assert.deepEqual(await states(second), ['ended']);
  await second.parts.clock.advance(1);
  await until(second, 'Running');
  second.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(second);
  await using third = await second.next();
  await third.parts.clock.advance(40_000);
  await until(third, 'Running');
});

test('a start that is due is left to the next node by a process that ends with its command', async () => {
  const first = await openAdmin();
  await apply(first);
  first.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(first);
  const second = await first.next({ mayDetach: false });
  await second.parts.clock.advance(400_000);
  assert.deepEqual(await states(second), ['ended']);
  await using third = await second.next();
  await third.parts.clock.advance(10_000);
  await until(third, 'Running');
});

test('a start that a user has cancelled is not due in the next process either', async () => {
  const first = await openAdmin();
  await apply(first);
  first.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(first);
  await first.call('POST', '/v1/pods/_/web-0/stop', '{}');
  const second = await first.next();
  await second.parts.clock.advance(400_000);
  assert.deepEqual(await states(second), ['ended']);
  await apply(second);
  second.parts.sandboxes.crash('the VMM was killed');
  await untilFailed(second);
  await second.call('POST', '/v1/drain', '{}');
  await using third = await second.next();
  await third.parts.clock.advance(400_000);
  assert.deepEqual(await states(third), ['ended']);
});

test('a pod that a user ends or removes, and one of a run, stay as they are', async () => {
  await using served = await openAdmin();
  const { sandboxes, clock } = served.parts;
  await apply(served);
  await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
  await clock.advance(400_000);
  assert.deepEqual(await states(served), ['ended']);
  await apply(served);
  sandboxes.crash('the VMM was killed');
  await untilFailed(served);
  await served.call('DELETE', '/v1/pods/_/web-0');
  await clock.advance(400_000);
  assert.deepEqual(await states(served), []);
  await run(served);
  sandboxes.crash('the VMM was killed');
  await until(served, 'ended');
  await clock.advance(400_000);
  assert.deepEqual(await states(served), ['ended']);
});

test('a stop of a pod that waits for its start cancels that, until it is applied again', async () => {
  await using served = await openAdmin();
  const { sandboxes, clock } = served.parts;
  await apply(served);
  sandboxes.crash('the VMM was killed');
  await untilFailed(served);
  assert.equal((await served.call('POST', '/v1/pods/_/web-0/stop', '{}')).status, 200);
  assert.equal(clock.pending, 0);
  await clock.advance(400_000);
  assert.deepEqual(await states(served), ['ended']);
  await apply(served);
  sandboxes.crash('the VMM was killed');
  await untilFailed(served);
  await clock.advance(10_000);
  await until(served, 'Running');
});

test('a pod that a user starts before that is due, and then stops, stays stopped', async () => {
  await using served = await openAdmin();
  const { sandboxes, clock } = served.parts;
  await apply(served);
  sandboxes.crash('the VMM was killed');
  await untilFailed(served);
  await served.call('POST', '/v1/pods/_/web-0/start', '{}');
  await until(served, 'Running');
  await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
  await until(served, 'ended');
  await clock.advance(60_000);
  assert.deepEqual(await states(served), ['ended']);
});

test('a drain cancels starts that are due, and Jobs between two pods', async () => {
  await using served = await openAdmin({ behaviours: { once: { onStart: (container) => container.exit(1) } } });
  const { sandboxes, clock } = served.parts;
  const job = `---
apiVersion: batch/v1
kind: Job
metadata: { name: j }
spec: { template: { spec: { restartPolicy: Never, containers: [{ name: once, image: i }] } } }
`;
  await apply(served, `${text}${job}`);
  await until(served, 'Running,ended');
  sandboxes.crash('the VMM was killed');
  await served.call('POST', '/v1/drain', '{}');
  await until(served, 'ended,ended');
  await clock.advance(400_000);
  assert.deepEqual(await states(served), ['ended', 'ended']);
});
