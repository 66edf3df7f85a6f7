import { kindOf, messageOf } from '#base/errors.ts';
import type { Result } from '#wire/messages.ts';
import type { ContainerBefore, ContainerMade } from '../container/container-home.ts';
import { loggedOf, openContainerIo, type ContainerIoSite } from '../container/container-io.ts';
import { exitOf, ContainerRecords, type ContainerRecord } from '../container/container-record.ts';
import type { ContainerSite } from '../container/create-container.ts';
import { GuestContainer } from '../container/guest-container.ts';
import type { LoggedBytes } from '../log/log-position.ts';
import { logPathOf } from '../log/log-writer.ts';
import type { Output } from '../log/output.ts';
import { type ContainerMounts, unheldMounts } from '../volume/container-mounts.ts';

type Listed = Result<'list'>['containers'][number];

/** A container that an earlier process made, with its output connected to its log again. */
export interface FoundContainer {
  readonly record: ContainerRecord;
  readonly made: ContainerMade;
  /** The guest's entry for it; undefined when it has exited and the guest has removed it. */
  readonly listed: Listed | undefined;
}

/** A container on record, with the size of its log. */
export interface KnownContainer {
  readonly record: ContainerRecord;
  /** Bytes in its log; undefined when unknown. */
  readonly logged: LoggedBytes | undefined;
}

/** Reads the records and logs of a sandbox's containers from this host, without a call to its machine. */
export async function readContainers(directory: string): Promise<readonly KnownContainer[]> {
  const records = new ContainerRecords(directory);
  const known = await records.list();
  return await Promise.all(
    known.map(async (record) => ({ record, logged: await loggedOf(record, { directory, records }) })),
  );
}

export interface AdoptContainersSite extends ContainerIoSite {
  readonly records: ContainerRecords;
  readonly mounts: ContainerMounts;
}

/**
 * Takes over the containers that are both in the guest and on record, from the byte at which each log ends. A container
 * without a record was never reported to a client, and is removed; a record without a container is left from an
 * interrupted removal, and is deleted.
 */
export async function adoptContainers(
  listed: readonly Listed[],
  known: readonly KnownContainer[],
  site: AdoptContainersSite,
  signal: AbortSignal,
): Promise<readonly FoundContainer[]> {
  const { guest, records, log } = site;
  for (const { id } of listed.filter((each) => known.every(({ record }) => record.id !== each.id))) {
    log.warn('removing a container that no client knows', { container: id });
    await guest.call('removeContainer', { id }, signal);
    await records.remove(id);
  }
  const found: FoundContainer[] = [];
  for (const each of known) {
    const { record } = each;
    const inGuest = listed.find(({ id }) => id === record.id);
    if (inGuest !== undefined) found.push(await goOn(each, inGuest, site, signal));
    else if (record.exit !== undefined) found.push({ record, made: over(record), listed: undefined });
    else await records.remove(record.id);
  }
  return found;
}

/** Ends execs of the earlier process, because their clients are disconnected. */
async function goOn(
  { record, logged: inLog }: KnownContainer,
  listed: Listed,
  site: AdoptContainersSite,
  signal: AbortSignal,
): Promise<FoundContainer> {
  const { guest, mounts, log } = site;
  const { id: containerId, spec, sources, mounts: status } = record;
  for (const { execId } of listed.execs) await guest.call('signalExec', { containerId, execId, signal: kill }, signal);
  await using undo = new AsyncDisposableStack();
  const held = undo.use(await mounts.adopt({ status, sources }, signal));
  const whose = { id: containerId, spec };
  const io = undo.use(await openContainerIo(whose, site, inLog));
  const { logged } = io;
  const attach = (from?: { readonly stdout: number; readonly stderr: number }) =>
    guest.call('attach', { containerId, stdio: io.stdio, ...(from === undefined ? {} : { from }) }, signal);
  if (logged === undefined) log.warn('output may be missing or repeated in a log', { container: spec.name });
  await attach(logged).catch(async (error: unknown) => {
    if (!['exhausted', 'invalid'].includes(kindOf(error)) || logged === undefined) throw error;
    log.warn('output may be missing or repeated in a log', { container: spec.name, why: messageOf(error) });
    await attach();
  });
  undo.move();
  io.output.ended
    .then(() => io[Symbol.asyncDispose]())
    .catch((error: unknown) => log.error('output not closed', error, { container: spec.name }));
  return { record, made: { ...factsOf(record), ...io, mounts: held }, listed };
}

const kill = 9;

function factsOf({ imageId, stopSignal, envBytes, user }: ContainerRecord) {
  return {
    ...{ imageId, stopSignal },
    ...(envBytes === undefined ? {} : { envBytes }),
    ...(user === undefined ? {} : { user }),
  };
}

const ended: Output = {
  ended: Promise.resolve(),
  follow: () => ({ ended: Promise.resolve(), stop: () => {} }),
};

function over(record: ContainerRecord): ContainerMade {
  const mounts = unheldMounts(record.mounts);
  return { ...factsOf(record), output: ended, stdin: undefined, mounts, reopenLog: () => Promise.resolve() };
}

/** Makes the container's object. Reports an exit that happened while no process was connected to the guest. */
export function restoreContainer({ record, made, listed }: FoundContainer, site: ContainerSite): GuestContainer {
  const { id, spec } = record;
  const exit = record.exit && exitOf(record.exit);
  const container = new GuestContainer(id, spec, logPathOf(site.directory, spec), site, {
    made,
    createdAt: new Date(record.createdAt),
    ...startedAtOf(record, listed, site.now()),
    ...(exit === undefined ? {} : { exit }),
    nextExec: nextExecOf(listed),
  });
  const news = exit === undefined ? listed?.exit : undefined;
  if (news !== undefined) {
    site.inbox.tell(() => container.onGuestExit({ kind: 'exited', containerId: id, ...news }));
  }
  return container;
}

/** The guest's time is untrusted, so it is limited to the time between creation and now. */
function startedAtOf(
  { startedAt, createdAt }: ContainerRecord,
  listed: Listed | undefined,
  now: Date,
): Pick<ContainerBefore, 'startedAt'> {
  if (startedAt !== undefined) return { startedAt: new Date(startedAt) };
  if (listed?.startedAtMs === undefined) return {};
  const earliest = new Date(createdAt).getTime();
  return { startedAt: new Date(Math.max(earliest, Math.min(now.getTime(), listed.startedAtMs))) };
}

function nextExecOf(listed: Listed | undefined): number {
  const numbers = listed?.execs.map(({ execId }) => Number(/^exec-(\d{1,9})$/.exec(execId)?.[1] ?? -1)) ?? [];
  return Math.max(-1, ...numbers) + 1;
}
