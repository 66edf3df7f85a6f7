import { setTimeout as delay } from 'node:timers/promises';
import { availableMB, pssMB, residentMB } from '../accounts.ts';
import { CriPod } from '../cri-peer.ts';
import { type Row, sleeping, type Values } from './row.ts';

/** Time in which a pod finishes its work after the start, in `ms`. */
export const settleMs = 2_000;
/** Time after which a machine of ours has given back what it needs for work only (`discard-at-rest.ts`), in `ms`. */
const restMs = 80_000;
const burstPods = 20;

/** Command that holds 64 MiB: busybox' tail keeps its whole input, which does not end. */
const holds = '{ head -c 67108864 /dev/zero; exec sleep 100000; } | tail -c 67108864 >/dev/null &';
const works = 'i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done; exec sleep 100000';

export const memoryRow: Row = async ({ field }) => {
  return async (name) => {
    const { base: image } = field.images;
    const start = (command: readonly string[]) => CriPod.start(field.peer(name), { name: 'memory', image, command });
    const settledMB = async (pod: CriPod) => {
      await delay(settleMs);
      return await pssMB(await pod.processes());
    };
    const idle = async (): Promise<Values> => {
      await using pod = await start(sleeping);
      const idleMB = await settledMB(pod);
      if (name !== 'podvm') return { idleMB };
      await delay(restMs);
      const restedMB = await pssMB(await pod.processes());
      return { idleMB, restedMB, wokenMs: await pod.execMs(), wokenMB: await settledMB(pod) };
    };
    const loaded = async (): Promise<Values> => {
      await using pod = await start(['sh', '-c', `${holds} ${works}`]);
      const said = await pod.exec(
        'sh',
        '-c',
        'until [ $(ps -o args | grep -c "^sleep 100000") -ge 2 ]; do sleep 0.2; done; echo ready',
      );
      if (said !== 'ready\n') throw new Error(`${name}: ${said}`);
      return { loadedMB: await settledMB(pod) };
    };
    return { ...(await idle()), ...(await loaded()) };
  };
};

/** Returns all started pods; when one fails, the others are removed. */
async function startAll(starts: readonly Promise<CriPod>[]): Promise<readonly CriPod[]> {
  const outcomes = await Promise.allSettled(starts);
  const pods = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed === undefined) return pods;
  await removeAll(pods);
  throw failed.reason;
}

export async function removeAll(pods: readonly CriPod[]): Promise<void> {
  const outcomes = await Promise.allSettled(pods.map((pod) => pod.remove()));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

export const burstRow: Row = async ({ field }) => {
  return async (name) => {
    const startedMs = performance.now();
    let firstMs = Infinity;
    const starts = Array.from({ length: burstPods }, async () => {
      const pod = await CriPod.start(field.peer(name), { name: 'burst', image: field.images.base, command: sleeping });
      firstMs = Math.min(firstMs, performance.now() - startedMs);
      return pod;
    });
    const pods = await startAll(starts);
    const allMs = performance.now() - startedMs;
    const said = await Promise.allSettled(pods.map((pod) => pod.exec('hostname')));
    const removedFromMs = performance.now();
    await removeAll(pods);
    const names = said.map((one) => (one.status === 'fulfilled' ? one.value : String(one.reason)));
    if (new Set(names).size !== burstPods) throw new Error(`${name}: host names of twenty pods are ${names.join(' ')}`);
    return { firstMs, allMs, removedMs: performance.now() - removedFromMs };
  };
};

export const densityRow: Row = async ({ field, density }) => {
  return async (name): Promise<Values> => {
    const peer = field.peer(name);
    const before = availableMB();
    const pods: CriPod[] = [];
    try {
      for (let at = 0; at < density; at += 1) {
        pods.push(await CriPod.start(peer, { name: 'dense', image: field.images.base, command: sleeping }));
      }
      await peer.rest();
      await delay(settleMs);
      const hostMB = (before - availableMB()) / density;
      const daemonMB = await residentMB(peer.daemonPid);
      const sizes = [];
      for (const pod of pods) sizes.push(await pssMB(await pod.processes()));
      let execSyncMs = 0;
      for (const pod of pods) execSyncMs = Math.max(execSyncMs, await pod.execMs());
      return { podMB: sizes.reduce((sum, size) => sum + size, 0) / density, hostMB, daemonMB, execSyncMs };
    } finally {
      await removeAll(pods);
    }
  };
};
