import { type Figures, Sheet } from './figures.ts';
import { idlePods, openNode } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/**
 * `podvm.execCommandMs`: `podvm exec POD -- true`, the whole command. `podvm.execMs`: the same over the admin socket,
 * by a client that is already running.
 */
export async function execSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using node = await openNode({ poolSize: 0 });
  await using pods = node.start(idlePods('bench-exec', 1));
  await pods.lines(1);
  for (let round = 1; round <= rounds; round += 1) {
    sheet.add('podvm.execMs', await node.execMs('bench-exec'));
    sheet.add('podvm.execCommandMs', await node.execCommandMs('bench-exec'));
  }
  say(`${rounds} execs each`);
  return sheet.figures;
}
