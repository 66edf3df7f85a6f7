import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProcessorSavings } from './processor-savings.ts';

/**
 * Simulates seconds of machines that use that many of `cores` each, all with the same shares, and returns the rested
 * ones after each second. The time that none of them uses is idle.
 */
function run(savings: ProcessorSavings, seconds: readonly Readonly<Record<string, number>>[], cores = 2) {
  const used = new Map<string, number>();
  let idleMs = 0;
  return seconds.map((second) => {
    for (const [id, each] of Object.entries(second)) used.set(id, (used.get(id) ?? 0) + each * 1000);
    idleMs += 1000 * (cores - Object.values(second).reduce((sum, each) => sum + each, 0));
    const uses = new Map([...used].map(([id, usedMs]) => [id, { usedMs, cpuShares: 102 }] as const));
    return [...savings.rested(idleMs, uses)].join(' ');
  });
}

test('flooding machines use up their savings, and a quiet one keeps its own', () => {
  const savings = new ProcessorSavings();
  const second = { a: 0.6, b: 0.6, c: 0.6, quiet: 0.05 };
  const rested = run(
    savings,
    Array.from({ length: 60 }, () => second),
  );
  assert.equal(rested[0], 'a b c quiet');
  assert.equal(rested.at(-1), 'quiet');
});

test('flooding machines have no savings even if other programs leave them only a third of the host', () => {
  const second = { a: 0.2, b: 0.2, c: 0.2, quiet: 0.05 };
  const rested = run(
    new ProcessorSavings(),
    Array.from({ length: 120 }, () => second),
    0.65,
  );
  assert.equal(rested[0], 'a b c quiet');
  assert.equal(rested.at(-1), 'quiet');
});

test('a machine that rested has priority only for what it saved', () => {
  const savings = new ProcessorSavings();
  const quiet = Array.from({ length: 60 }, () => ({ burns: 0, a: 0.66, b: 0.66, c: 0.66 }));
  const burning = Array.from({ length: 20 }, () => ({ burns: 1, a: 0.33, b: 0.33, c: 0.33 }));
  const rested = run(savings, [...quiet, ...burning]).map((ids) => ids.split(' ').includes('burns'));
  assert.equal(rested[59], true);
  // It saved 2 s of the processor, and is given half a core meanwhile.
  assert.equal(rested.slice(60).filter(Boolean).length, 3);
});

test('machines get time in proportion to their shares, and those of a removed machine go to the others', () => {
  const savings = new ProcessorSavings();
  const use = (usedMs: number, cpuShares: number) => ({ usedMs, cpuShares });
  let [asked, plain] = [0, 0]; // all of two cores, so that none idles
  for (let second = 1; second <= 60; second += 1) {
    asked += 1500;
    plain += 500;
    const uses = new Map([
      ['asked', use(asked, 900)],
      ['plain', use(plain, 100)],
    ]);
    const rested = [...savings.rested(0, uses)];
    if (second === 60) assert.deepEqual(rested, ['asked'], 'of 1.8 cores it has used 1.5; the other more than its 0.2');
  }
  let rested: ReadonlySet<string> = new Set();
  for (let second = 61; second <= 70; second += 1) {
    plain += 500;
    rested = savings.rested((second - 60) * 1500, new Map([['plain', use(plain, 100)]]));
  }
  assert.deepEqual([...rested], ['plain']);
});
