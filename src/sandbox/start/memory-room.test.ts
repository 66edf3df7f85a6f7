import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { makeRoom } from './memory-room.ts';

const mib = 1024 * 1024;

/** `spares`: memory that waiting machines give back. */
async function outcomeOf(of: { available: number; spares?: number; starts?: number; reserve?: number }) {
  const done: string[] = [];
  let available = of.available * mib;
  const room = {
    surroundings: {
      availableBytes: async () => available,
      log: { ...silentLog, warn: (event: string) => void done.push(event) },
    },
    limits: { memoryReserveBytes: (of.reserve ?? 100) * mib, startBytes: 50 * mib },
    pool: {
      giveBack: async (why: string) => {
        done.push(`given back: ${why}`);
        available += (of.spares ?? 0) * mib;
      },
    },
  };
  await makeRoom(room, of.starts ?? 1).catch((error: unknown) => {
    assert.ok(error instanceof PodvmError && error.kind === 'exhausted' && error.fix !== undefined);
    done.push(error.message);
  });
  return done;
}

test('a start that leaves the reserve gives nothing back', async () => {
  assert.deepEqual(await outcomeOf({ available: 150 }), []);
  assert.deepEqual(await outcomeOf({ available: 0, reserve: 0 }), []);
});

test('waiting machines are given back before a pod is refused', async () => {
  assert.deepEqual(await outcomeOf({ available: 149, spares: 1 }), ['given back: memory is short']);
  assert.deepEqual(await outcomeOf({ available: 120, spares: 20 }), [
    'given back: memory is short',
    'memory is short: a pod is refused',
    'Cannot make a sandbox: the node has 140 MiB of memory available, of which it keeps 100 MiB; a machine takes 50 MiB to start',
  ]);
});

test('starts in progress count, since their machines have not taken their memory yet', async () => {
  assert.deepEqual(await outcomeOf({ available: 200, starts: 2 }), []);
  assert.equal((await outcomeOf({ available: 199, starts: 2 })).length, 3);
});
