import { freemem } from 'node:os';
import { type Figures, Sheet } from './figures.ts';
import { cpuMs, idlePods, memoryOf, openNode, processesOf } from './node.ts';
import type { SuiteOptions } from './suite.ts';

const observedMs = 10_000;

/**
 * Runs `n` idle pods at once, each a busybox that sleeps. `podvm.idlePrivateKiB`, `podvm.idlePssKiB`: all host
 * processes of one pod. `podvm.execMs`: an exec in each. `daemonKiBPerPod`: growth of our own process.
 * `daemonCpuPercent`, `podvm.idleCpuPercent`: use of one core, by our process and by each pod. `hostKiBPerPod`:
 * decrease of the host's free memory.
 */
export async function densitySuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using node = await openNode({ poolSize: 0 });
  const daemonBefore = await memoryOf([node.pid]);
  const freeBefore = freemem();
  const startedMs = performance.now();
  await using pods = node.start(idlePods('bench-dense', count));
  await pods.lines(count);
  sheet.add('startsPerSecond', (count * 1000) / (performance.now() - startedMs));
  say(`${count} pods run after ${Math.round(performance.now() - startedMs)} ms`);

  const names = count === 1 ? ['bench-dense'] : Array.from({ length: count }, (_, index) => `bench-dense-${index + 1}`);
  for (const name of names) sheet.add('podvm.execMs', await node.execMs(name));
  const ids = await Promise.all(names.map(async (name) => (await node.inspect(name)).sandbox?.id ?? ''));
  const vmms: number[] = [];
  for (const id of ids) {
    const pids = await processesOf(id);
    const { anonymousKiB, pssKiB } = await memoryOf(pids);
    sheet.add('podvm.idlePrivateKiB', anonymousKiB);
    sheet.add('podvm.idlePssKiB', pssKiB);
    vmms.push(...pids);
  }
  sheet.add('hostKiBPerPod', (freeBefore - freemem()) / 1024 / count);
  const daemonAfter = await memoryOf([node.pid]);
  sheet.add('daemonKiBPerPod', (daemonAfter.anonymousKiB - daemonBefore.anonymousKiB) / count);

  const used = async (pids: readonly number[]) => (await Promise.all(pids.map(cpuMs))).reduce((sum, ms) => sum + ms, 0);
  const [ownBefore, theirsBefore] = [await used([node.pid]), await used(vmms)];
  await new Promise((resolve) => {
    setTimeout(resolve, observedMs);
  });
  sheet.add('daemonCpuPercent', ((await used([node.pid])) - ownBefore) / (observedMs / 100));
  sheet.add('podvm.idleCpuPercent', ((await used(vmms)) - theirsBefore) / (observedMs / 100) / count);
  return sheet.figures;
}
