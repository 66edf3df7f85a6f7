import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arrivals } from './arrivals.ts';

/** Returns in which order layers are awaited successfully. */
async function orderOf(lines: readonly string[], layers: readonly number[]): Promise<readonly number[]> {
  const arrivals = new Arrivals(
    (async function* () {
      for (const line of lines) {
        await new Promise(setImmediate);
        yield line;
      }
    })(),
  );
  const order: number[] = [];
  await Promise.all(layers.map((layer) => arrivals.of(layer).then(() => order.push(layer))));
  return order;
}

test('a layer is there when its number is told, in whatever order', async () => {
  assert.deepEqual(await orderOf(['2', '0', '1'], [0, 1, 2]), [2, 0, 1]);
});

test('all layers are there at the end, told or not', async () => {
  assert.deepEqual(await orderOf(['1'], [0, 1, 2]), [1, 0, 2]);
});

test('a layer that was told before is there at once', async () => {
  const arrivals = new Arrivals(
    (async function* () {
      yield '0';
      await new Promise<never>(() => undefined);
    })(),
  );
  await new Promise(setImmediate);
  await arrivals.of(0);
});
