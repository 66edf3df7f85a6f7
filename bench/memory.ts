import { type Figures, Sheet } from './figures.ts';
import { idlePods, memoryOf, openNode, processesOf } from './node.ts';
import type { SuiteOptions } from './suite.ts';

const sizes = [256, 8192];

/**
 * One idle pod with one busybox container, all its host processes together, of machines of two nominal sizes:
 * `memory.<MiB>.privateKiB` (anonymous), `memory.<MiB>.pssKiB`.
 */
export async function memorySuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  for (const memoryMiB of sizes) {
    await using node = await openNode({ poolSize: 0, memoryMiB });
    for (let round = 1; round <= rounds; round += 1) {
      await using pods = node.start(idlePods('bench-memory', 1));
      await pods.lines(1);
      const id = (await node.inspect('bench-memory')).sandbox?.id ?? '';
      const { anonymousKiB, pssKiB } = await memoryOf(await processesOf(id));
      sheet.add(`memory.${memoryMiB}.privateKiB`, anonymousKiB);
      sheet.add(`memory.${memoryMiB}.pssKiB`, pssKiB);
      say(`${memoryMiB} MiB nominal: ${anonymousKiB} KiB anonymous`);
    }
  }
  return sheet.figures;
}
