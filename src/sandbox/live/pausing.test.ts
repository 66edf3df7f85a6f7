import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { Pausing } from './pausing.ts';

/** `freeze`: freezes the VMM, or lets it run again. */
function pausingOf(freeze: (isFrozen: boolean) => Promise<void>) {
  const told: boolean[] = [];
  const guest = { setFrozen: (isFrozen: boolean) => void told.push(isFrozen) };
  return { told, pausing: new Pausing({ guest, machine: { freezeVmm: freeze }, surroundings: { log: silentLog } }) };
}

test('a machine that is to run again while it is being frozen runs', async () => {
  const first = Promise.withResolvers<void>();
  const done: boolean[] = [];
  const { pausing } = pausingOf(async (isFrozen) => {
    if (isFrozen) await first.promise;
    done.push(isFrozen);
  });
  const all = [pausing.set(true), pausing.set(false)];
  await new Promise(setImmediate);
  first.resolve();
  await Promise.all(all);
  assert.deepEqual(done, [true, false]);
  assert.equal(pausing.isPaused, false);
});

test('a machine that cannot be frozen is not paused, and can be tried again', async () => {
  let error: Error | undefined = new Error('no descriptors');
  const { pausing, told } = pausingOf(async () => {
    if (error !== undefined) throw error;
  });
  await assert.rejects(pausing.set(true), /no descriptors/);
  assert.deepEqual([pausing.isPaused, told.at(-1)], [false, false]);
  error = undefined;
  await pausing.set(true);
  assert.deepEqual([pausing.isPaused, told.at(-1)], [true, true]);
});
