import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type PodSummary, podSummarySchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import { type ListForm, type Listing, printList, watchList } from '../terminal/listing.ts';
import { type Choice, chooser } from './label-selector.ts';
import { type Orphan, warnOfLeft } from './orphans.ts';
import { type Terminal, age } from '../terminal/terminal.ts';

/** Sources of the list of pods while no podvm serves. */
export interface PsParts {
  /** Machines that a killed podvm has left running. */
  readonly orphans: () => Promise<readonly Orphan[]>;
  /** Calls `use` with a client for the pods that have ended. */
  readonly withEnded: (use: (client: Client) => Promise<void>) => Promise<void>;
}

export interface PsOptions extends ListForm, Choice {
  readonly all: boolean;
  /** Lists only the pod of this name. */
  readonly name?: string | undefined;
}

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
  const { name } = options;
  const isChosen = chooser(options);
  const isNamed = (pod: PodSummary) => name === undefined || pod.name === name || nameOf(pod) === name;
  let orphans: readonly Orphan[] = [];
  const find = async () => {
    const found = await podsNow(client, parts, options.all);
    orphans = found.orphans;
    return found.pods.filter((pod) => isChosen(pod) && isNamed(pod));
  };
  const listing: Listing<PodSummary> = {
    find,
    head,
    rows: (...row) => [cellsOf(...row)],
    names: (pod) => [nameOf(pod)],
  };
  const pods = await printList(listing, options, terminal);
  if (name !== undefined && pods.length === 0 && options.watch !== true)
    throw new PodvmError('notFound', `Cannot find pod ${name}`, { fix: 'See `podvm ps -a` for what there is.' });
  await warnOfLeft(pods, terminal);
  await watchList(listing, options, pods, terminal, until);
  return orphans;
}

async function podsNow(client: Client, parts: PsParts, all: boolean) {
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
  return { pods, orphans };
}

const nameOf = ({ namespace, name }: PodSummary) => `${namespace}/${name}`;

const head = (isWide: boolean): readonly string[] => [
  ...['NAMESPACE', 'NAME', 'READY', 'STATUS', 'RESTARTS', 'AGE', 'OWNER', 'IP'],
  ...(isWide ? ['IMAGES', 'LABELS'] : []),
];

function cellsOf(pod: PodSummary, isWide: boolean, nowMs: number): readonly string[] {
  const cells = [
    ...[pod.namespace, pod.name, pod.ready, statusOf(pod), String(pod.restarts)],
    pod.createdAt === '' ? '' : age(pod.createdAt, nowMs),
    pod.owner ?? 'podvm',
    (isWide ? pod.addresses.join(',') : pod.addresses[0]) || '-', // the table fits 80 columns
  ];
  if (!isWide) return cells;
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
