import { setTimeout as delay } from 'node:timers/promises';
import { nameOf, pssMB } from '../accounts.ts';
import { settleMs } from './memory.ts';
import { live } from './pod.ts';
import type { Row } from './row.ts';

/** Names of processes that are a pod's VMM and its jail, or its container and the pause of runc. */
const ofPods: ReadonlySet<string> = new Set(['qemu-system-x86', 'bwrap', 'sleep']);

export const containerdRow: Row = async ({ field }) => {
  return async (name) =>
    await live(field, name, async (pod) => {
      await delay(settleMs);
      const pids = await pod.processes();
      const names = await Promise.all(pids.map(nameOf));
      const ofRuntime = names.filter((each) => each !== '' && !ofPods.has(each));
      return { memoryMB: await pssMB(pids), processes: pids.length, ofRuntime: ofRuntime.length };
    });
};
