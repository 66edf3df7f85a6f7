import { type Figures, Sheet } from './figures.ts';
import { idlePods, openNode, untilWaiting } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/**
 * Starts `n` pods at once, on a node without a pool and on one where as many machines wait. `burst.firstMs`,
 * `burst.allMs`, `burstPooled.firstMs`, `burstPooled.allMs`: from the shell until the first one, and all of them, have
 * printed a line. `startsPerSecond`: without a pool.
 */
export async function burstSuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  for (const [name, poolSize] of [
    ['burst', 0],
    ['burstPooled', count],
  ] as const) {
    await using node = await openNode({ poolSize });
    await untilWaiting(poolSize);
    await using pods = node.start(idlePods('bench-burst', count));
    const times = await pods.lines(count);
    const allMs = times.at(-1) ?? Number.NaN;
    sheet.add(`${name}.firstMs`, times[0] ?? Number.NaN);
    sheet.add(`${name}.allMs`, allMs);
    if (poolSize === 0) sheet.add('startsPerSecond', (count * 1000) / allMs);
    say(`${count} pods run after ${Math.round(allMs)} ms, ${poolSize} machines having waited`);
  }
  return sheet.figures;
}
