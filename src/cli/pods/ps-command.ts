import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type PodSummary, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { parseSelector } from './label-selector.ts';
import { type ListOutput, listText } from '../terminal/listing.ts';
import { type Orphan, warnOfLeft } from './orphans.ts';
import { type Terminal, age, table, write } from '../terminal/terminal.ts';

/** Sources of the list of pods while no podvm serves. */
export interface PsParts {
  /** Machines that a killed podvm has left running. */
  readonly orphans: () => Promise<readonly Orphan[]>;
  /** Calls `use` with a client for the pods that have ended. */
  readonly withEnded: (use: (client: Client) => Promise<void>) => Promise<void>;
}

export interface PsOptions {
  readonly all: boolean;
  readonly json: boolean;
  readonly output: 'table' | 'wide' | ListOutput;
  readonly selector?: string;
  readonly namespace?: string;
  readonly watch: boolean;
}

/** Interval of `--watch`, in `ms`. */
const watchMs = 500;

/**
 * Lists the pods, and says of each that is left alone why; with `watch`, also prints each change until `until` aborts.
 * Without a running podvm, lists and
 * returns the machines that a killed one has left running.
 */
export async function psCommand(
  client: Client,
  parts: PsParts,
  options: PsOptions,
  terminal: Terminal,
  until: AbortSignal,
): Promise<readonly Orphan[]> {
  const { stdout } = terminal;
  const { selector, namespace } = options;
  const hasLabels = selector === undefined ? () => true : parseSelector(selector);
  const isSelected = (pod: PodSummary) =>
    hasLabels(pod.labels ?? {}) && (namespace === undefined || pod.namespace === namespace);
  const output = options.json ? 'json' : options.output;
  const { pods, orphans } = await podsNow(client, parts, options.all, isSelected);
  await write(stdout, await textOf(pods, output));
  await warnOfLeft(pods, terminal);
  if (!options.watch) return orphans;
  let before = rowsOf(pods, output);
  for (;;) {
    await delay(watchMs, undefined, { signal: until }).catch(() => undefined);
    if (until.aborted) return orphans;
    const now = (await podsNow(client, parts, options.all, isSelected)).pods;
    const rows = rowsOf(now, output);
    const changed = now.filter((pod) => rows.get(keyOf(pod)) !== before.get(keyOf(pod)));
    if (changed.length > 0) await write(stdout, await textOf(changed, output, { isFirst: false }));
    before = rows;
  }
}

async function podsNow(client: Client, parts: PsParts, all: boolean, isSelected: (pod: PodSummary) => boolean) {
  const path = `/v1/pods?ended=${all}`;
  const listed = v.array(podSummarySchema);
  let orphans: readonly Orphan[] = [];
  const pods = await client.get(path, listed).catch(async (error: unknown) => {
    if (!(error instanceof PodvmError && error.kind === 'unavailable')) throw error;
    orphans = await parts.orphans();
    let ended: readonly PodSummary[] = [];
    if (all) await parts.withEnded(async (server) => void (ended = await server.get(path, listed)));
    return [...orphans.map(orphanSummary), ...ended];
  });
  return { pods: pods.filter(isSelected), orphans };
}

const keyOf = ({ namespace, name }: PodSummary) => `${namespace}/${name}`;

/** Rows that `watch` compares: the cells without the age. */
const rowsOf = (pods: readonly PodSummary[], output: PsOptions['output']): ReadonlyMap<string, string> =>
  new Map(pods.map((pod) => [keyOf(pod), JSON.stringify(cellsOf({ ...pod, createdAt: '' }, output))]));

async function textOf(pods: readonly PodSummary[], output: PsOptions['output'], { isFirst = true } = {}) {
  if (output !== 'table' && output !== 'wide') return await listText(pods, output, (pod) => [keyOf(pod)]);
  const head = ['NAMESPACE', 'NAME', 'READY', 'STATUS', 'RESTARTS', 'AGE', 'OWNER', 'IP'];
  const wide = output === 'wide' ? ['IMAGES', 'LABELS'] : [];
  const text = table(
    [...head, ...wide],
    pods.map((pod) => cellsOf(pod, output)),
  );
  return isFirst ? text : text.slice(text.indexOf('\n') + 1);
}

function cellsOf(pod: PodSummary, output: PsOptions['output']): readonly string[] {
  const cells = [
    ...[pod.namespace, pod.name, pod.ready, statusOf(pod), String(pod.restarts)],
    pod.createdAt === '' ? '' : age(pod.createdAt, Date.now()),
    pod.owner ?? 'podvm',
    (output === 'wide' ? pod.addresses.join(',') : pod.addresses[0]) || '-', // the table fits 80 columns
  ];
  if (output !== 'wide') return cells;
  const labels = Object.entries(pod.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [...cells, pod.images?.join(',') ?? '-', labels.join(',') || '-'];
}

/** Formats a pod's status as kubectl does, with the exit code of a failure. */
function statusOf({ phase, reason, endedAt, exitCode }: PodSummary): string {
  if (endedAt === undefined) return reason ?? phase;
  return exitCode === 0 ? 'Completed' : `${reason ?? phase} (${exitCode})`;
}

const orphanSummary = ({ namespace, name, pid, createdAt }: Orphan): PodSummary => ({
  namespace: namespace || '-',
  name: name || `machine ${pid}`,
  phase: 'Orphaned',
  owner: '-',
  ready: '-',
  restarts: 0,
  createdAt,
  addresses: [],
});
