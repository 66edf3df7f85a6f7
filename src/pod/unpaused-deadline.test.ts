import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { createFakeClock } from './testing/fake-clock.ts';
import { one, startFakePod } from './testing/started-pod.ts';
import { unpausedDeadline } from './unpaused-deadline.ts';

test('a deadline passes in time in which the pod is not paused', async () => {
  const clock = createFakeClock();
  let isPaused = false;
  // SAFE: all that is read
  const sandbox = {
    status: {
      get isPaused() {
        return isPaused || undefined;
      },
    },
  } as Parameters<typeof unpausedDeadline>[2];
  const deadline = unpausedDeadline(clock, 10_000, sandbox);
  await clock.advance(9000);
  isPaused = true;
  await clock.advance(3_600_000);
  assert.equal(deadline.signal.aborted, false);
  isPaused = false;
  await clock.advance(2000);
  assert.equal(kindOf(deadline.signal.reason), 'timeout');
  assert.equal(clock.pending, 0);
  unpausedDeadline(clock, 10_000, sandbox)[Symbol.dispose]();
  assert.equal(clock.pending, 0);
});

for (const isPaused of [true, false]) {
  test(`the start of a container ${isPaused ? 'goes on' : 'fails'} in a pod that is ${isPaused ? '' : 'not '}paused for long`, async () => {
    for (const spec of [one(), one(', tty: true')]) {
      const { promise: starts, resolve } = Promise.withResolvers<void>();
      const settings = { behaviours: { a: { starts } } };
      const terminalSize = { columns: 80, rows: 24 };
      const { running, clock, statusOf, reasons } = startFakePod(spec, settings, { terminalSize });
      await clock.advance(10);
      if (isPaused) await running.setPaused(true);
      await clock.advance(600_000);
      if (isPaused) await running.setPaused(false);
      resolve();
      await clock.advance(10);
      assert.equal(statusOf('a').state.kind, isPaused ? 'running' : 'terminated', reasons().join());
      await running.kill();
    }
  });
}
