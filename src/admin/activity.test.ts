import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { Activity } from './activity.ts';

const never = new AbortController().signal;

function open() {
  const clock = createFakeClock();
  const activity = new Activity(clock);
  const watch = (ms: number, signal = never) => {
    const watched = { isIdle: false };
    void activity.idleFor(ms, signal).then(() => (watched.isIdle = true));
    return watched;
  };
  return { clock, activity, watch };
}

test('idleFor() resolves after a time without activity, which each activity restarts', async () => {
  const { clock, activity, watch } = open();
  const watched = watch(1000);
  await clock.advance(900);
  const pod = activity.begin();
  const request = activity.begin();
  await clock.advance(5000);
  pod[Symbol.dispose]();
  pod[Symbol.dispose](); // counts once
  await clock.advance(5000);
  assert.equal(watched.isIdle, false, 'the request goes on');
  request[Symbol.dispose]();
  await clock.advance(999);
  assert.equal(watched.isIdle, false);
  await clock.advance(1);
  assert.equal(watched.isIdle, true);
  assert.equal(clock.pending, 0);
});

test('idleFor() ends with its signal, and leaves no timer', async () => {
  const { clock, watch } = open();
  const abort = new AbortController();
  const watched = watch(1000, abort.signal);
  abort.abort();
  await clock.settle();
  assert.deepEqual([watched.isIdle, clock.pending], [true, 0]);
});
