import assert from 'node:assert/strict';
import { it } from 'node:test';
import { afterPauses, poll } from './poll.ts';

/** Timers that fire immediately, and the pauses requested from them. */
function timers() {
  const pauses: number[] = [];
  const setTimer = (ms: number, handler: () => void) => {
    queueMicrotask(handler);
    return pauses.push(ms);
  };
  return { pauses, setTimer };
}

it('poll() returns what it finds, and looks once more after its last pause', async () => {
  const clock = timers();
  const found = [undefined, undefined, 'late'];
  assert.equal(await poll(clock, () => found.shift(), { everyMs: 5, forMs: 10 }), 'late');
  assert.deepEqual(clock.pauses, [5, 5]);
});

it('poll() fails after its pauses, independent of the clock', async () => {
  const clock = timers();
  assert.equal(await poll(clock, () => undefined, { everyMs: 5, forMs: 10 }), undefined);
  assert.deepEqual(clock.pauses, [5, 5]);
});

/** Timers that a test fires: `fire` fires the pending one, and returns how many there were. */
function timersToFire() {
  const pending = new Map<number, () => void>();
  let made = 0;
  return {
    setTimer: (_ms: number, handler: () => void) => {
      pending.set((made += 1), handler);
      return made;
    },
    clearTimer: (timer: number) => void pending.delete(timer),
    fire: () => {
      const handlers = [...pending.values()];
      pending.clear();
      for (const handler of handlers) handler();
      return handlers.length;
    },
  };
}

it('afterPauses() acts after as many pauses as the time has seconds, however long each took, and only once', () => {
  const timers = timersToFire();
  let acts = 0;
  afterPauses(timers, 3000, () => (acts += 1));
  assert.deepEqual([timers.fire(), timers.fire(), acts], [1, 1, 0]);
  assert.deepEqual([timers.fire(), acts], [1, 1]);
  assert.deepEqual([timers.fire(), acts], [0, 1]);
});

it('afterPauses() does not act once it is cancelled, at any pause', () => {
  for (const before of [0, 1, 2]) {
    const timers = timersToFire();
    const cancel = afterPauses(timers, 3000, () => assert.fail('acted'));
    for (let count = 0; count < before; count += 1) timers.fire();
    cancel();
    assert.equal(timers.fire(), 0);
  }
});
