import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { Pausing } from './pausing.ts';

test('a sandbox that ends while it is being paused continues', async () => {
  const signals: boolean[] = [];
  const freezeVmm = async (isFrozen: boolean) => {
    await delay(isFrozen ? 20 : 0); // looks at the process first
    signals.push(isFrozen);
  };
  const parts = { machine: { freezeVmm }, guest: { setFrozen: () => undefined }, surroundings: { log: silentLog } };
  const pausing = new Pausing(parts);
  await Promise.all([pausing.set(true), pausing.set(false)]);
  assert.deepEqual(signals, [true, false]);
  assert.equal(pausing.isPaused, false);
});
