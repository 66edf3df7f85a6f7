import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { NodeDetails } from '#api/node.ts';
import { memoryOf } from '#host/meminfo.ts';
import { readProcessFigures } from '#host/process/process-figures.ts';
import { memoryRequestOf } from '#sandbox/resources.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';

type Room = Pick<NodeDetails, 'memory' | 'cpu'>;

/** What the node has, what it has promised to running pods, and what is left. */
export async function nodeRoom(sandboxes: Pick<Sandboxes, 'list' | 'memoryReserveBytes'>): Promise<Room> {
  const meminfo = await readFile('/proc/meminfo', 'latin1');
  const [totalBytes, availableBytes] = [memoryOf(meminfo, 'MemTotal'), memoryOf(meminfo, 'MemAvailable')];
  const all = sandboxes.list().filter(({ status }) => status.state === 'ready');
  const promised = all.map(({ resources }) => resources);
  const sum = (amounts: readonly (number | undefined)[]) => amounts.reduce((all: number, one = 0) => all + one, 0);
  const without = (amounts: readonly (number | undefined)[]) => amounts.filter((one) => one === undefined).length;
  const requests = all.map(memoryRequestOf);
  const used = all.map(({ status: { vmmPid } }) => (vmmPid === undefined ? undefined : readProcessFigures(vmmPid)));
  const memory = promised.map(({ memoryLimitBytes }) => memoryLimitBytes);
  const cpu = promised.map(({ cpuLimitMillis }) => cpuLimitMillis);
  return {
    ...(totalBytes === undefined || availableBytes === undefined
      ? {}
      : {
          memory: {
            ...{ totalBytes, availableBytes, reserveBytes: sandboxes.memoryReserveBytes },
            ...{ requestsBytes: sum(requests), usedBytes: sum(used.map((vmm) => vmm?.privateBytes)) },
            ...{ limitsBytes: sum(memory), unlimitedPods: without(memory) },
          },
        }),
    cpu: {
      totalMillis: 1000 * availableParallelism(),
      requestsMillis: sum(promised.map(({ cpuRequestMillis }) => cpuRequestMillis)),
      ...{ limitsMillis: sum(cpu), unlimitedPods: without(cpu) },
    },
  };
}
