import { type Figures, Sheet } from './figures.ts';
import { idlePods, openNode } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/** So many pods asked for at once. `burst.firstMs`, `burst.allMs`: from the shell until one, and until all have spoken. */
export async function burstSuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using node = await openNode({ poolSize: 0 });
  await using pods = node.start(idlePods('bench-burst', count));
  const times = await pods.lines(count);
  sheet.add('burst.firstMs', times[0] ?? Number.NaN);
  sheet.add('burst.allMs', times.at(-1) ?? Number.NaN);
  sheet.add('startsPerSecond', (count * 1000) / (times.at(-1) ?? Number.NaN));
  say(`${count} pods run after ${Math.round(times.at(-1) ?? 0)} ms`);
  return sheet.figures;
}
