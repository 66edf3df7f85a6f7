import * as v from 'valibot';
import { setTimeout as delay } from 'node:timers/promises';
import { type PodDetails, podDetailsSchema, type PodSummary, podSummarySchema } from '#api/pods.ts';
import { type NodeDetails, nodeDetailsSchema } from '#api/node.ts';
import type { Client } from '../client.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import { detailText, type ListForm } from '../terminal/listing.ts';
import { type Choice, chooser } from './label-selector.ts';
import { arePods, podNames, podPath } from './pod-name.ts';
import { type Terminal, table, write } from '../terminal/terminal.ts';

export interface TopOptions extends Choice {
  /** False with `--no-stream`. */
  readonly stream: boolean;
  readonly sort: 'cpu' | 'memory' | 'name';
  readonly output: ListForm['output'];
}

/** Usage of a pod at one time. */
export interface Usage {
  readonly name: string;
  readonly atMs: number;
  readonly cpuUsec: number;
  readonly memoryBytes: number;
  readonly memoryRequestBytes: number | undefined;
  readonly memoryLimitBytes: number | undefined;
  readonly threads: number;
  /** Memory of the host that only its machine uses; undefined for an older node. */
  readonly privateBytes: number | undefined;
  /** Memory of its machine on the host, shared pages divided among those that share them. */
  readonly vmmBytes: number;
}

/** Time between two samples, in `ms`. */
const sampleMs = 1000;
/** Clears the screen and moves to its upper left. */
const clear = '\u001b[H\u001b[2J';

/**
 * Prints the usage of pods: on a terminal repeatedly until a signal, otherwise once, after a second of measuring.
 * `words`: only these pods; all for one of kubectl's words, as in `kubectl top pods`, which no pod has as its name.
 */
export async function topCommand(
  client: Client,
  words: readonly string[],
  { stream, sort, output, ...choice }: TopOptions,
  { stdout }: Terminal,
  ends: EndSignals,
): Promise<void> {
  const pods = await podsOf(client, words);
  const isLive = stream && stdout.isTTY && output === 'table';
  const isWanted: IsWanted = chooser(choice);
  const isOfAll = pods === undefined && choice.selector === undefined && choice.namespace === undefined;
  const room = async () => (isOfAll ? roomTable(await client.get('/v1/node', nodeDetailsSchema)) : undefined);
  let before = await sample(client, pods, isWanted);
  for (;;) {
    await delay(sampleMs, undefined, { signal: ends.any }).catch(() => undefined);
    if (ends.any.aborted) return;
    const now = await sample(client, pods, isWanted);
    const used = usedBetween(before, now, sort);
    const listed = await textOf(used, output, room);
    await write(
      stdout,
      isLive
        ? `${clear}${listed
            .split('\n')
            .slice(0, stdout.rows - 1)
            .join('\n')}\n`
        : listed,
    );
    if (!isLive) return;
    before = now;
  }
}

/** Undefined for all. */
async function podsOf(client: Client, words: readonly string[]): Promise<readonly string[] | undefined> {
  const [word, ...others] = podNames(words);
  if (word === undefined) return undefined;
  if (others.length > 0 || !(arePods(word) || /^nodes?$/i.test(word))) return [word, ...others];
  const pods = await client.get('/v1/pods', v.array(podSummarySchema));
  return pods.some(({ name }) => name === word) ? [word] : undefined;
}

async function textOf(
  used: readonly Used[],
  output: TopOptions['output'],
  room: () => Promise<string | undefined>,
): Promise<string> {
  if (output === 'name') return used.map(({ name }) => `${name}\n`).join('');
  if (output !== 'table' && output !== 'wide') return await detailText(used.map(figuresOf), output);
  return [await room(), tableOf(used, output === 'wide')].filter((part) => part !== undefined).join('\n');
}

type IsWanted = (pod: PodSummary) => boolean;

async function sample(
  client: Client,
  pods: readonly string[] | undefined,
  isWanted: IsWanted,
): Promise<readonly Usage[]> {
  const all = pods === undefined ? await client.get('/v1/pods', v.array(podSummarySchema)) : [];
  const names = pods ?? all.filter(isWanted).map(({ namespace, name }) => `${namespace}/${name}`);
  const found = await Promise.all(
    names.map(async (name) => {
      const details = client.get(podPath(name), podDetailsSchema);
      return usageOf(await (pods === undefined ? details.catch(() => undefined) : details)); // it may have ended since
    }),
  );
  return found.filter((usage) => usage !== undefined);
}

function usageOf(details: PodDetails | undefined): Usage | undefined {
  const stats = details?.sandbox?.stats;
  if (details === undefined || stats === undefined) return undefined;
  const { cpuUsec, memoryBytes, memoryLimitBytes, pids: threads, vmmPssKiB, vmmPrivateBytes: privateBytes } = stats;
  const name = `${details.namespace}/${details.name}`;
  const memoryRequestBytes = details.sandbox?.memoryRequestBytes;
  const memory = { memoryBytes, memoryRequestBytes, memoryLimitBytes, privateBytes, vmmBytes: vmmPssKiB * 1024 };
  return { name, atMs: performance.now(), cpuUsec, threads, ...memory };
}

/** Usage between two samples. */
interface Used extends Usage {
  /** Percent of one core. */
  readonly cpu: number;
}

/** The usage of pods that are in both samples, the largest first. */
export function usedBetween(
  before: readonly Usage[],
  now: readonly Usage[],
  sort: TopOptions['sort'],
): readonly Used[] {
  const used = now.flatMap((usage) => {
    const earlier = before.find(({ name }) => name === usage.name);
    // The processor time of a pod that was restarted in between begins at zero.
    if (earlier === undefined || usage.cpuUsec < earlier.cpuUsec) return [];
    return [{ ...usage, cpu: (usage.cpuUsec - earlier.cpuUsec) / 10 / (usage.atMs - earlier.atMs) }];
  });
  const byName = (one: Usage, other: Usage) => one.name.localeCompare(other.name);
  const orders = {
    name: byName,
    cpu: (one: Used, other: Used) => other.cpu - one.cpu || byName(one, other),
    memory: (one: Usage, other: Usage) => other.memoryBytes - one.memoryBytes || byName(one, other),
  };
  return used.toSorted(orders[sort]);
}

/** Formats what the node has, what it has promised to its pods, and what is left; undefined for an older node. */
export function roomTable({ memory, cpu }: NodeDetails): string | undefined {
  if (memory === undefined || cpu === undefined) return undefined;
  const { totalBytes, availableBytes, reserveBytes, requestsBytes, limitsBytes, usedBytes } = memory;
  const cores = (millis: number) => (millis / 1000).toFixed(2);
  const withoutLimit = (pods: number) => (pods === 0 ? '' : ` and ${pods} without`);
  return table(
    ['NODE', 'TOTAL', 'REQUESTS', 'LIMITS OF PODS', 'MACHINES', 'ROOM'],
    [
      [
        ...['memory', mebibytes(totalBytes), mebibytes(requestsBytes)],
        ...[`${mebibytes(limitsBytes)}${withoutLimit(memory.unlimitedPods)}`, mebibytes(usedBytes)],
        mebibytes(Math.max(0, availableBytes - reserveBytes)),
      ],
      [
        ...['cpu', cores(cpu.totalMillis), cores(cpu.requestsMillis)],
        ...[`${cores(cpu.limitsMillis)}${withoutLimit(cpu.unlimitedPods)}`, '-'],
        cores(Math.max(0, cpu.totalMillis - cpu.requestsMillis)),
      ],
    ],
  );
}

/** What the machine takes of the host beyond the pod's own memory: its overhead. */
const overheadOf = ({ privateBytes, memoryBytes }: Used): number | undefined =>
  privateBytes === undefined ? undefined : privateBytes - memoryBytes;

export const tableOf = (used: readonly Used[], isWide = false): string =>
  table(
    [
      ...['POD', 'CPU %', 'MEMORY', 'REQUEST', 'LIMIT', 'MACHINE', 'OVERHEAD'],
      ...(isWide ? ['THREADS', 'WITH SHARED'] : []),
    ],
    used.map((pod) => [
      pod.name,
      pod.cpu.toFixed(1),
      ...[pod.memoryBytes, pod.memoryRequestBytes, pod.memoryLimitBytes, pod.privateBytes, overheadOf(pod)].map(
        (bytes) => (bytes === undefined ? '-' : mebibytes(bytes)),
      ),
      ...(isWide ? [String(pod.threads), mebibytes(pod.vmmBytes)] : []),
    ]),
  );

function figuresOf(pod: Used) {
  const { name, cpu, memoryBytes, memoryRequestBytes, memoryLimitBytes, privateBytes, threads, vmmBytes } = pod;
  const overheadBytes = overheadOf(pod);
  return {
    ...{ pod: name, cpuPercent: Number(cpu.toFixed(1)), memoryBytes },
    ...(memoryRequestBytes === undefined ? {} : { memoryRequestBytes }),
    ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }),
    ...(privateBytes === undefined ? {} : { privateBytes }),
    ...(overheadBytes === undefined ? {} : { overheadBytes }),
    ...{ threads, machineBytes: vmmBytes },
  };
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)}Mi`;
