import { CriPod, type PodOptions, type Timed } from '../cri-peer.ts';
import { hostCpuMs } from '../accounts.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { medianOf } from '../../figures.ts';
import { type Row, sleeping, type Values } from './row.ts';
import type { Field } from '../field.ts';
import type { Contestant } from '../table.ts';

const execs = 10;
/** Time for which the host is watched at rest, in `ms`. */
const idleMs = 2_000;
/** Maximum use of one core at rest: above it, other work of the host distorts the measurement. */
const maxIdleRate = 0.4;
/** Time in which the host must come to rest, in `ms`: what ran before may leave a runtime with images to unpack or remove. */
const restTimeoutMs = 60_000;
const cpuPods = 3;
const cpuExecs = 20;

const podOf = (field: Field): PodOptions => ({ name: 'pod', image: field.images.base, command: sleeping });

/** Each verb of a pod's life, and an exec in between that shows that its container runs; then `look` sees the pod. */
export async function live(field: Field, name: Contestant, look: (pod: CriPod) => Promise<Values>): Promise<Values> {
  const values: Record<string, number> = {};
  const timed: Timed = async (verb, call) => {
    const startedMs = performance.now();
    const answer = await call();
    values[`${verb}Ms`] = performance.now() - startedMs;
    return answer;
  };
  const pod = await timed('fromScratch', () => CriPod.start(field.peer(name), podOf(field), timed));
  const run = async () => {
    const said = await pod.exec('echo', 'runs');
    if (said !== 'runs\n') throw new Error(`${name}: echo said ${said}`);
    return await look(pod);
  };
  const seen = await run().catch(async (error: unknown) => {
    await pod.remove();
    throw error;
  });
  await timed('stopAndRemove', () => pod.remove(timed));
  return { ...values, ...seen };
}

export const podRow: Row = async ({ field }) => {
  return async (name) => await live(field, name, async () => ({}));
};

export const execRow: Row = async ({ field, undo }) => {
  const pods = new Map<string, CriPod>();
  return async (name) => {
    let pod = pods.get(name);
    if (pod === undefined) {
      pod = undo.use(await CriPod.start(field.peer(name), podOf(field)));
      pods.set(name, pod);
    }
    const times: number[] = [];
    for (let at = 0; at < execs; at += 1) times.push(await pod.execMs());
    return { execSyncMs: medianOf(times) };
  };
};

/** Waits until the host is at rest. Its use of one core then: 0.1 is a tenth of it. */
async function rateAtRest(): Promise<number> {
  const deadlineMs = performance.now() + restTimeoutMs;
  for (;;) {
    const [from, fromMs] = [await hostCpuMs(), performance.now()];
    await delay(idleMs);
    const rate = ((await hostCpuMs()) - from) / (performance.now() - fromMs);
    if (rate <= maxIdleRate) return rate;
    if (performance.now() > deadlineMs) {
      throw new Error(`the host has other work: it uses ${Math.round(rate * 100)} % of one core at rest`);
    }
  }
}

/** Measures the use of the whole host meanwhile, less its use at rest before. */
export const cpuRow: Row = async ({ field }) => {
  const perOperation = async (name: Parameters<Field['rest']>[0], count: number, operation: () => Promise<void>) => {
    await field.rest(name);
    const idleRate = await rateAtRest();
    const [from, fromMs] = [await hostCpuMs(), performance.now()];
    for (let at = 0; at < count; at += 1) await operation();
    await field.rest(name);
    return ((await hostCpuMs()) - from - idleRate * (performance.now() - fromMs)) / count;
  };
  return async (name): Promise<Values> => {
    const peer = field.peer(name);
    const podMs = await perOperation(name, cpuPods, async () => {
      await (await CriPod.start(peer, podOf(field))).remove();
    });
    await using pod = await CriPod.start(peer, podOf(field));
    const execMs = await perOperation(name, cpuExecs, async () => void (await pod.execMs()));
    return { podMs, execMs };
  };
};
