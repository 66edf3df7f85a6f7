import { readFile } from 'node:fs/promises';
import { type Figures, Sheet } from './figures.ts';
import { idlePods, memoryOf, openNode, processesOf } from './node.ts';
import type { SuiteOptions } from './suite.ts';
import { vmmMemoryOf } from './vmm-memory.ts';

const sizes = [256, 8192];

/**
 * One idle pod with one busybox container, all its host processes together, of machines of two nominal sizes:
 * `memory.<MiB>.privateKiB` (anonymous), `memory.<MiB>.pssKiB`, and what the latter is for: `memory.<MiB>.guestKiB` and so
 * on (`vmm-memory.ts`).
 */
export async function memorySuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  for (const memoryMiB of sizes) {
    await using node = await openNode({ poolSize: 0, memoryMiB });
    for (let round = 1; round <= rounds; round += 1) {
      await using pods = node.start(idlePods('bench-memory', 1));
      await pods.lines(1);
      const id = (await node.inspect('bench-memory')).sandbox?.id ?? '';
      const pids = await processesOf(id);
      const { anonymousKiB, pssKiB } = await memoryOf(pids);
      sheet.add(`memory.${memoryMiB}.privateKiB`, anonymousKiB);
      sheet.add(`memory.${memoryMiB}.pssKiB`, pssKiB);
      const smaps = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => '')));
      for (const [part, size] of Object.entries(vmmMemoryOf(smaps.join(''))))
        sheet.add(`memory.${memoryMiB}.${part}KiB`, size);
      say(`${memoryMiB} MiB nominal: ${anonymousKiB} KiB anonymous`);
    }
  }
  return sheet.figures;
}
