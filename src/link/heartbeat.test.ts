import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProcessPulse } from '#host/process/process-pulse.ts';
import { Heartbeat } from './heartbeat.ts';

const limits = { lookMs: 5_000, quietMs: 6_000, answerMs: 9_000, patienceMs: 120_000 };

/** Checks a guest that is silent from the beginning, every 5 s. */
async function look(options: {
  readonly pulse?: (atMs: number) => Partial<ProcessPulse> | undefined;
  readonly answersAtMs?: number;
  readonly untilMs?: number;
  readonly everyMs?: number;
  readonly isFrozen?: (atMs: number) => boolean;
}) {
  const { pulse, isFrozen = () => false, answersAtMs = Infinity, untilMs = 130_000, everyMs = limits.lookMs } = options;
  const heartbeat = new Heartbeat(limits); // its own first look would come after the test
  const guest = { heardMs: 0, pings: 0, gaveUpAtMs: undefined as number | undefined, why: '' };
  let nowMs = 0;
  const still = { isStopped: false, waitsForDisk: false, ranMs: 0, waitedMs: 0 };
  using _ = heartbeat.watch({
    get heardMs() {
      return guest.heardMs;
    },
    isFrozen: () => isFrozen(nowMs),
    ping: () => (guest.pings += 1),
    ...(pulse === undefined
      ? {}
      : {
          pulse: () => {
            const found = pulse(nowMs);
            return Promise.resolve(found === undefined ? undefined : { ...still, ...found });
          },
        }),
    giveUp: (error) => {
      assert.equal(error.kind, 'timeout');
      guest.gaveUpAtMs = nowMs;
      guest.why = error.message;
    },
  });
  for (nowMs = everyMs; nowMs <= untilMs; nowMs += everyMs) {
    if (nowMs >= answersAtMs) guest.heardMs = Math.max(guest.heardMs, answersAtMs);
    await heartbeat.look(nowMs);
  }
  return guest;
}

describe('a guest that does not answer', () => {
  it('is given up within 30 s when its process is stopped, idle or only computes', async () => {
    for (const [pulse, why] of [
      [() => ({ isStopped: true }), 'its process is stopped'],
      [() => ({}), 'its guest does not run'],
      [(ms: number) => ({ ranMs: 2 * ms, waitedMs: ms / 100 }), 'its guest is busy and does not answer'],
    ] as const) {
      const { gaveUpAtMs = Infinity, ...guest } = await look({ pulse });
      assert.ok(gaveUpAtMs <= 25_000, `after ${gaveUpAtMs} ms`);
      assert.equal(guest.pings, 1);
      assert.equal(guest.why, `the machine has not answered for 25 s: ${why}`);
    }
  });

  it('is given up for its silence after it was frozen, and not for that before', async () => {
    const frozen = await look({ pulse: () => ({ isStopped: true }), isFrozen: () => true });
    assert.deepEqual([frozen.gaveUpAtMs, frozen.pings], [undefined, 0]);
    const thawed = await look({ pulse: () => ({}), isFrozen: (atMs) => atMs < 100_000 });
    assert.ok((thawed.gaveUpAtMs ?? 0) >= 100_000 + limits.answerMs, `after ${thawed.gaveUpAtMs} ms`);
  });

  it('has more time by as much as its process waits for a processor', async () => {
    const { gaveUpAtMs } = await look({ pulse: (ms) => ({ ranMs: ms / 5, waitedMs: (ms * 4) / 5 }) });
    assert.equal(gaveUpAtMs, 60_000); // nine seconds at a fifth, after the look at 15 s
  });

  it('has two minutes when its process waits for a disk, is unknown or has ended', async () => {
    const busy = await look({ pulse: () => ({ waitsForDisk: true }) });
    assert.equal(busy.gaveUpAtMs, 130_000); // it was pinged at 10 s
    assert.match(busy.why, /its process waits for a disk$/);
    assert.equal((await look({})).gaveUpAtMs, 130_000);
    assert.equal((await look({ pulse: () => undefined })).gaveUpAtMs, 130_000);
  });

  it('is not given up earlier because the host itself was stopped', async () => {
    for (const everyMs of [60_000, 600_000]) {
      const guest = await look({ pulse: () => ({}), everyMs, untilMs: 3 * everyMs - 1 });
      assert.equal(guest.gaveUpAtMs, undefined);
    }
  });
});

describe('a guest that answers', () => {
  it('is not pinged while it sends something by itself', async () => {
    const heartbeat = new Heartbeat(limits);
    let nowMs = 0;
    let pings = 0;
    using _ = heartbeat.watch({
      get heardMs() {
        return nowMs - 1_000;
      },
      ping: () => (pings += 1),
      giveUp: (error) => assert.fail(error),
    });
    for (; nowMs < 600_000; nowMs += limits.lookMs) await heartbeat.look(nowMs);
    assert.equal(pings, 0);
  });

  it('late counts like one that answers at once', async () => {
    const guest = await look({ pulse: () => ({}), answersAtMs: 22_000, untilMs: 40_000 });
    assert.equal(guest.gaveUpAtMs, undefined);
    assert.equal(guest.pings, 2);
  });
});

it('guests that fall silent together are pinged one after another, unless they are heard or gone meanwhile', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  using _ = { [Symbol.dispose]: () => t.mock.timers.reset() };
  const heartbeat = new Heartbeat(limits);
  const pinged: number[] = [];
  const guests = Array.from({ length: 100 }, (_, at) => ({
    heardMs: 0,
    ping: () => void pinged.push(at),
    giveUp: () => assert.fail(`guest ${at} is given up`),
  }));
  const watched = guests.map((guest) => heartbeat.watch(guest));
  await heartbeat.look(limits.quietMs);
  assert.deepEqual(pinged, [0]);
  t.mock.timers.tick(100);
  assert.deepEqual(pinged, [0, 1, 2, 3, 4, 5]);
  Object.assign(guests[50] ?? {}, { heardMs: limits.quietMs + 50 });
  watched[60]?.[Symbol.dispose]();
  t.mock.timers.tick(limits.lookMs / 2);
  const asked = guests.map((_, at) => at).filter((at) => at !== 50 && at !== 60);
  assert.deepEqual(pinged, asked, 'all others, and each once');
  for (const each of watched) each[Symbol.dispose]();
});

it('a heartbeat has a timer only while it watches a guest', async () => {
  const heartbeat = new Heartbeat({ ...limits, lookMs: 1 });
  const { promise, resolve } = Promise.withResolvers<void>();
  const guest = { heardMs: -limits.quietMs, ping: resolve, giveUp: (error: Error) => assert.fail(error) };
  const alive = setInterval(() => {}, 1_000); // the heartbeat's timer keeps no process
  const watched = heartbeat.watch(guest);
  await promise;
  watched[Symbol.dispose]();
  clearInterval(alive);
});
