import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { restedFactor } from './processor-savings.ts';
import { ProcessorWeights } from './processor-weights.ts';

const cpuLimits = { cpuMillis: undefined, cpuShares: 100 };

/** The kernel's files for a machine with process 7, beside an equal one that never runs. Times are in ticks of 10 ms. */
class FakeKernel {
  usedTicks = 0;
  failing = '';
  readonly shares: number[] = [];
  #looks = Promise.withResolvers<void>();
  readonly #weights = new ProcessorWeights({ read: (path) => this.#read(path), pause: () => setImmediate() });

  async open(): Promise<void> {
    await this.#weights.limit('quiet', cpuLimits, () => Promise.resolve());
    await this.#weights.limit('it', cpuLimits, (limits) => this.#write(limits));
    this.#weights.joined('it', 7);
    await this.looked();
  }

  [Symbol.dispose](): void {
    for (const id of ['it', 'quiet']) this.#weights.forget(id);
  }

  /** Resolves when a look that began after this call is over: the next one has begun. */
  async looked(): Promise<void> {
    for (let left = 2; left > 0; left -= 1) {
      this.#looks = Promise.withResolvers();
      await this.#looks.promise;
    }
  }

  #write({ cpuShares }: { readonly cpuShares: number }): Promise<void> {
    if (this.failing === 'write') return Promise.reject(lackingDescriptors());
    this.shares.push(cpuShares);
    return Promise.resolve();
  }

  #read(path: string): string {
    if (path === '/proc/7/stat') this.#looks.resolve();
    if (path === this.failing) throw lackingDescriptors();
    const zeros = '0 '.repeat(10);
    return path === '/proc/stat' ? 'cpu  1 0 1 0 0 0\n' : `7 (it) S ${zeros}${this.usedTicks} 0 0\n`;
  }
}

function lackingDescriptors(): Error {
  return Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
}

for (const failing of ['/proc/stat', '/proc/7/stat', 'write']) {
  test(
    `a look that lacks descriptors for ${failing} changes nothing, and a later one does`,
    { timeout: 60_000 },
    async () => {
      using kernel = new FakeKernel();
      await kernel.open();
      kernel.failing = failing;
      kernel.usedTicks = 1000; // it floods
      await kernel.looked();
      assert.deepEqual(kernel.shares, [100 * restedFactor]);

      kernel.failing = '';
      await kernel.looked();
      assert.deepEqual(kernel.shares, [100 * restedFactor, 100]);
    },
  );
}

test('a machine keeps its savings after a look that lacks descriptors', { timeout: 60_000 }, async () => {
  using kernel = new FakeKernel();
  kernel.usedTicks = 1_000_000; // long ago
  await kernel.open();
  kernel.failing = '/proc/7/stat';
  await kernel.looked();
  kernel.failing = '';
  await kernel.looked();
  assert.deepEqual(kernel.shares, [100 * restedFactor]);
});

test(
  'ProcessorWeights reads a few of many machines at a time, and each once a second',
  { timeout: 60_000 },
  async () => {
    const portions: { readonly afterMs: number; readonly paths: string[] }[] = [];
    const enough = Promise.withResolvers<void>();
    const weights = new ProcessorWeights({
      read: (path) => {
        if (path === '/proc/stat') return 'cpu  1 0 1 0 0 0\n';
        portions.at(-1)?.paths.push(path);
        return `7 (it) S ${'0 '.repeat(13)}\n`;
      },
      pause: async (afterMs) => {
        if (portions.length === 100) enough.resolve();
        portions.push({ afterMs, paths: [] });
        await setImmediate();
      },
    });
    const ids = Array.from({ length: 100 }, (_, at) => at + 1);
    for (const id of ids) {
      await weights.limit(String(id), cpuLimits, () => Promise.resolve());
      weights.joined(String(id), id);
    }
    await enough.promise;
    for (const id of ids) weights.forget(String(id));
    for (const from of [20, 40, 60, 80]) {
      const second = portions.slice(from, from + 20);
      assert.ok(second.every(({ afterMs, paths }) => afterMs === 50 && paths.length === 5));
      assert.equal(new Set(second.flatMap(({ paths }) => paths)).size, 100);
    }
  },
);
