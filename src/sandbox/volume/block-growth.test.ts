import assert from 'node:assert/strict';
import { test } from 'node:test';
import { followGrowth } from './block-growth.ts';

/** Follows something that has these sizes one after the other, and records the reports. */
async function follow(sizes: readonly (number | Error)[], grown: (bytes: number) => Promise<void> = async () => {}) {
  const told: string[] = [];
  const all = Promise.withResolvers<void>();
  let looks = 0;
  const growth = followGrowth(10, {
    intervalMs: 1,
    measure: async () => {
      const now = sizes[looks];
      looks += 1;
      if (looks > sizes.length) all.resolve();
      if (now instanceof Error) throw now;
      return now ?? 0;
    },
    grown: async (bytes) => {
      await grown(bytes);
      told.push(String(bytes));
    },
    failed: (error) => void told.push(String(error)),
  });
  await all.promise;
  await growth[Symbol.asyncDispose]();
  return told;
}

test('followGrowth() reports each larger size once, and no smaller size', async () => {
  assert.deepEqual(await follow([10, 20, 20, 15, 30, 10]), ['20', '30']);
});

test('followGrowth() reports an error once, continues, and repeats a size that was not accepted', async () => {
  let refusals = 2;
  const grown = async () => {
    if ((refusals -= 1) >= 0) throw new Error('refused');
  };
  assert.deepEqual(await follow([20, 20, 20, 20], grown), ['Error: refused', '20']);
  assert.deepEqual(await follow([new Error('gone'), new Error('gone'), 20]), ['Error: gone', '20']);
});

test('followGrowth() stops when it is disposed', async () => {
  let looks = 0;
  const growth = followGrowth(10, {
    intervalMs: 1_000_000,
    measure: async () => (looks += 1),
    grown: async () => {},
    failed: () => {},
  });
  await growth[Symbol.asyncDispose]();
  assert.equal(looks, 0);
});
