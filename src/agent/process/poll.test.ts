import assert from 'node:assert/strict';
import { it } from 'node:test';
import { poll } from './poll.ts';

/** Timers that fire immediately, and the pauses requested from them. */
function timers() {
  const pauses: number[] = [];
  const setTimer = (ms: number, handler: () => void) => {
    queueMicrotask(handler);
    return pauses.push(ms);
  };
  return { pauses, setTimer };
}

it('poll() gives what it finds, and looks once more after its last pause', async () => {
  const clock = timers();
  const found = [undefined, undefined, 'late'];
  assert.equal(await poll(clock, () => found.shift(), { everyMs: 5, forMs: 10 }), 'late');
  assert.deepEqual(clock.pauses, [5, 5]);
});

it('poll() gives up after its pauses, whatever the clock says', async () => {
  const clock = timers();
  assert.equal(await poll(clock, () => undefined, { everyMs: 5, forMs: 10 }), undefined);
  assert.deepEqual(clock.pauses, [5, 5]);
});
