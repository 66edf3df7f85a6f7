import { setTimeout as delay } from 'node:timers/promises';
import { type Figures, Sheet } from './figures.ts';
import { idlePods, openNode, untilWaiting, type Node } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/** Pause in which clean-up after the last pod ends, in `ms`. */
const restMs = 2_000;

/**
 * Pods one after the other, as a user of a running node starts them; busybox, image present.
 * `podvm.startMs`: a machine restored without a pool, from the VMM's start to the agent's first answer.
 * `podvm.sandboxMs`: the whole sandbox of it. `podvm.startPooledMs`: a sandbox from the pool, less its CNI chain.
 * `podvm.firstOutputMs`: from the shell to the first byte, from the pool.
 */
export async function startSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  {
    await using node = await openNode({ poolSize: 0 });
    for (let round = 1; round <= rounds; round += 1) await startCold(node, `bench-start-${round}`, sheet, say);
  }
  await using node = await openNode({ poolSize: 1 });
  for (let round = 1; round <= rounds; round += 1) await startPooled(node, `bench-pooled-${round}`, sheet, say);
  return sheet.figures;
}

async function startCold(node: Node, name: string, sheet: Sheet, say: (line: string) => void): Promise<void> {
  await using pods = node.start(idlePods(name, 1));
  const [firstMs = Number.NaN] = await pods.lines(1);
  const phase = await phasesOf(node, name);
  sheet.add('podvm.startMs', phase('machine started') + phase('agent answered'));
  sheet.add('podvm.sandboxMs', phase('total'));
  sheet.add('podvm.firstOutputUnpooledMs', firstMs);
  say(`${name}: agent after ${Math.round(phase('machine started') + phase('agent answered'))} ms`);
}

async function startPooled(node: Node, name: string, sheet: Sheet, say: (line: string) => void): Promise<void> {
  await untilWaiting(1);
  await delay(restMs);
  await using pods = node.start(idlePods(name, 1));
  const [firstMs = Number.NaN] = await pods.lines(1);
  const phase = await phasesOf(node, name);
  sheet.add('podvm.firstOutputMs', firstMs);
  sheet.add('podvm.startPooledMs', phase('total') - phase('network connected'));
  say(`${name}: first output after ${Math.round(firstMs)} ms`);
}

async function phasesOf(node: Node, name: string): Promise<(phase: string) => number> {
  const { sandbox } = await node.inspect(name);
  return (wanted) => sandbox?.phases.find((found) => found.name === wanted)?.ms ?? Number.NaN;
}
