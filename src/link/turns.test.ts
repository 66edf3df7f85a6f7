import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SharedThread, Turns, turnLimits } from './turns.ts';

const limits = { share: 0.5, total: 1, savedMs: 10 };

test('used() never delays a guest that takes less than its share', () => {
  const turns = new Turns(new SharedThread(0, limits), 0);
  for (let ms = 0; ms < 1000; ms += 10) assert.equal(turns.used(4, ms + 4), 0);
});

test('used() delays a guest without savings for as long as it takes to save the excess', () => {
  const turns = new Turns(new SharedThread(0, limits), 0);
  assert.equal(turns.used(10, 10), 0); // saved 10, used 10
  assert.equal(turns.used(10, 20), 10); // saved 5 meanwhile, used 10
  assert.equal(turns.rest(25), 5);
  assert.equal(turns.rest(30), 0);
});

test('used() gives a guest that never rests only its share and its savings', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.01, max: 50, noNaN: true }), { minLength: 20 }), (looks) => {
      const turns = new Turns(new SharedThread(0, { share: 1 / 3, total: 1, savedMs: 50 }), 0);
      let [nowMs, usedMs] = [0, 0];
      for (const lookMs of looks) {
        const waitMs = turns.used(lookMs, nowMs + lookMs);
        nowMs += lookMs;
        usedMs += lookMs;
        nowMs += waitMs;
      }
      assert.ok(usedMs <= nowMs / 3 + 50 + 1e-6, `${usedMs} of ${nowMs}`);
    }),
  );
});

/** Simulates one thread and guests that take as much as they may, each look as long as given, for that time. */
function flood(lookMs: readonly number[], forMs: number, good: { takesMs: number; everyMs: number }) {
  const thread = new SharedThread(0, turnLimits);
  const guests = lookMs.map((ms) => ({ ms, turns: new Turns(thread, 0), readyMs: 0, usedMs: 0 }));
  const polite = new Turns(thread, 0);
  let [nowMs, politeAtMs, waitedMs] = [0, 0, 0];
  while (nowMs < forMs) {
    if (nowMs >= politeAtMs) {
      nowMs += good.takesMs;
      waitedMs = Math.max(waitedMs, polite.used(good.takesMs, nowMs));
      politeAtMs += good.everyMs;
    }
    for (const guest of guests) {
      if (guest.readyMs > nowMs) continue;
      const restMs = guest.turns.rest(nowMs);
      guest.readyMs = nowMs + restMs;
      if (restMs > 0) continue;
      nowMs += guest.ms;
      guest.usedMs += guest.ms;
      guest.readyMs = nowMs + guest.turns.used(guest.ms, nowMs);
    }
    nowMs += 0.05;
  }
  return { usedMs: guests.map(({ usedMs }) => usedMs), waitedMs, nowMs };
}

test('six flooding guests share a third of the thread equally, and a well-behaved one never waits', () => {
  const { usedMs, waitedMs, nowMs } = flood([1, 1, 1, 1, 1, 1], 20_000, { takesMs: 0.5, everyMs: 20 });
  const sum = usedMs.reduce((all, ms) => all + ms, 0);
  assert.ok(sum <= nowMs * turnLimits.total + 6 * turnLimits.savedMs + 6, `${sum} of ${nowMs}`);
  assert.ok(Math.max(...usedMs) < 1.2 * Math.min(...usedMs), usedMs.join());
  assert.equal(waitedMs, 0);
});

test('guests that each stay just below one share have together no more than all may have', () => {
  const thread = new SharedThread(0, turnLimits);
  const guests = Array.from({ length: 12 }, () => ({ turns: new Turns(thread, 0), readyMs: 0 }));
  let usedMs = 0;
  for (let nowMs = 0; nowMs < 20_000; nowMs += 10) {
    for (const guest of guests) {
      if (guest.readyMs > nowMs || guest.turns.rest(nowMs) > 0) continue;
      usedMs += 1.6; // less than a sixth of the 10 ms
      guest.readyMs = nowMs + guest.turns.used(1.6, nowMs);
    }
  }
  assert.ok(usedMs <= 20_000 * turnLimits.total + 12 * (turnLimits.savedMs + 1.6), `${usedMs}`);
});

test('a single guest has its whole share again once the others have ended or are quiet', () => {
  const thread = new SharedThread(0, turnLimits);
  const [one, two, three] = [new Turns(thread, 0), new Turns(thread, 0), new Turns(thread, 0)];
  for (const turns of [one, two, three]) turns.used(60, 60);
  assert.ok(Math.abs(thread.rate - turnLimits.total / 3) < 1e-9);
  two.end();
  assert.equal(thread.rate, turnLimits.share);
  three.used(0, 10_000);
  one.used(60, 10_000);
  assert.equal(thread.rate, turnLimits.share);
});

test('guests together never have more than the total share and their savings, however long each read takes', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.05, max: 30, noNaN: true }), { minLength: 1, maxLength: 12 }), (looks) => {
      const { usedMs, nowMs } = flood(looks, 5000, { takesMs: 0.2, everyMs: 50 });
      const sum = usedMs.reduce((all, ms) => all + ms, 0);
      const most =
        nowMs * turnLimits.total + looks.length * turnLimits.savedMs + looks.reduce((all, ms) => all + ms, 0);
      assert.ok(sum <= most + 1e-6, `${sum} of ${nowMs}`);
    }),
    { numRuns: 50 },
  );
});
