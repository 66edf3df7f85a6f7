import { basename } from 'node:path';
import { messageOf } from '#base/errors.ts';
import type { Attachment } from '#network/network.ts';
import { isRunning } from '#host/process/process-identity.ts';
import { ContainerRecords } from '../container/container-record.ts';
import { Holdings } from '../state/holdings.ts';
import type { LiveSandbox } from '../live/live-sandbox.ts';
import { runSteps } from '../start/run-steps.ts';
import { publish, siteOf, type TakingContext } from '../start/start-sandbox.ts';
import { restoreContainer } from './adopt-containers.ts';
import { adoptSteps, type AdoptableRecord, type AdoptSite, ForeignAgent } from './adopt-steps.ts';
import { EndedSandbox } from './ended-sandbox.ts';
import { LeftSandbox, type LeftParts } from './left-sandbox.ts';
import {
  type AnyRecord,
  readAnyOwner,
  readAnyPod,
  readAnyRecord,
  readRecord,
  readTornRecord,
  sandboxDirectories,
  writeRecord,
  type SandboxRecord,
} from '../recovery/record.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { endRemains, sweepDirectories } from '../recovery/sweep.ts';

type IsWanted = (spec: Pick<SandboxSpec, 'keptFor'>) => boolean;

/** Decision about a sandbox of an earlier process. */
type Fate =
  | { readonly kind: 'adopt' | 'ended'; readonly path: string; readonly record: AdoptableRecord }
  | { readonly kind: 'sweep'; readonly path: string; readonly why: string }
  /** Left unchanged, for another process. */
  | { readonly kind: 'leave'; readonly path: string }
  /** The same; its record is of a newer version. */
  | { readonly kind: 'newer'; readonly path: string; readonly record: AnyRecord; readonly why: string };

/**
 * Takes over the sandboxes that outlive their process, and ends the others. A sandbox that cannot be taken over is
 * ended and stays listed as failed, with the reason, until it is removed. Kept sandboxes that are not wanted are left
 * unchanged for another process, and so are those that only another podvm can take over, which are listed.
 */
export async function takeOver(
  context: TakingContext,
  isWanted: IsWanted,
  signal: AbortSignal,
): Promise<readonly (LiveSandbox | EndedSandbox | LeftSandbox)[]> {
  const { root, parts, surroundings } = context;
  const { log } = surroundings;
  const fates: Fate[] = [];
  for (const path of await sandboxDirectories(root)) fates.push(await fateOf(path, context, isWanted));
  for (const fate of fates) {
    if (fate.kind === 'sweep') log.info('sandbox not taken over', { sandbox: basename(fate.path), why: fate.why });
  }
  const sweptPaths = fates.filter(({ kind }) => kind === 'sweep').map(({ path }) => path);
  const othersIds = new Set(fates.filter(({ kind }) => kind !== 'sweep').map(({ path }) => basename(path)));
  await sweepDirectories(sweptPaths, othersIds, parts, log, signal); // first, since the others may need what these hold

  const isLeft = ({ kind }: Fate) => kind === 'leave' || kind === 'newer';
  const leftIds = new Set(fates.filter(isLeft).map(({ path }) => basename(path)));
  const sandboxes = await Promise.all(
    fates.map(async (fate) => {
      try {
        return await sandboxOf(fate, context, signal);
      } catch (error) {
        if (signal.aborted) throw error;
        log.error('sandbox left alone', error, { sandbox: basename(fate.path) }); // the others are still taken over
        leftIds.add(basename(fate.path));
        return undefined;
      }
    }),
  );
  const listed = sandboxes.filter((sandbox) => sandbox !== undefined);
  for (const sandbox of listed) if (sandbox instanceof LeftSandbox) leftIds.add(sandbox.id);
  const mayHaveLeft = listed.some((sandbox) => sandbox instanceof EndedSandbox);
  if (mayHaveLeft) await parts.network.collect(leftIds, signal); // attachments of sandboxes that were not taken over
  return listed;
}

async function fateOf(
  path: string,
  { userIds, surroundings: { log } }: TakingContext,
  isWanted: IsWanted,
): Promise<Fate> {
  let record: SandboxRecord | undefined;
  try {
    record = await readRecord(path);
  } catch (error) {
    const torn = await readTornRecord(path);
    if (torn !== undefined) {
      log.warn('the record of a sandbox is damaged, probably by a power cut', { sandbox: basename(path) });
      return { kind: 'sweep', path, why: 'its record is damaged' };
    }
    log.error('sandbox left alone', error, { sandbox: basename(path) });
    const any = await readAnyRecord(path).catch(() => undefined);
    return any === undefined ? { kind: 'leave', path } : { kind: 'newer', path, record: any, why: messageOf(error) };
  }
  const { pod } = record ?? {};
  if (record === undefined || pod === undefined)
    return { kind: 'sweep', path, why: 'its start was not finished, or the podvm that ran it is gone' };
  if (!isWanted(pod.spec)) {
    userIds.take(record.uid);
    return { kind: 'leave', path };
  }
  return { kind: pod.state === 'ready' ? 'adopt' : 'ended', path, record: { ...record, pod } };
}

async function sandboxOf(
  fate: Fate,
  context: TakingContext,
  signal: AbortSignal,
): Promise<LiveSandbox | EndedSandbox | LeftSandbox | undefined> {
  if (fate.kind === 'newer') return await leaveNewer(fate, context, signal);
  if (fate.kind !== 'adopt' && fate.kind !== 'ended') return undefined;
  const { record, path } = fate;
  if (fate.kind === 'ended') return await endedOf(record, path, context);
  try {
    return await adopt(record, path, context, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof ForeignAgent) {
      context.surroundings.log.error('sandbox left alone', error, { sandbox: record.id });
      return await leave({ record, path, why: error.message, ...error.held }, context);
    }
    const { namespace, name } = record;
    const pod = `${namespace}/${name}`;
    context.surroundings.log.error('pod not taken over', error, { sandbox: record.id, pod });
    const failed = { ...record, pod: { ...record.pod, state: 'failed', failure: messageOf(error) } } as const;
    await writeRecord(path, failed).catch((cause: unknown) => {
      context.surroundings.log.error('sandbox not recorded', cause, { sandbox: record.id });
    });
    return await endedOf(failed, path, context);
  }
}

/** Waits for the same gate as starts do. An abort leaves the sandbox unchanged, for the next process. */
async function adopt(
  record: AdoptableRecord,
  path: string,
  context: TakingContext,
  stopping: AbortSignal,
): Promise<LiveSandbox> {
  const { pod } = record;
  const holdings = new Holdings();
  try {
    const outcome = { isTakenOver: false };
    const site: AdoptSite = { ...siteOf({ ...pod.spec, isKept: true }, context), record, path, outcome };
    const signal = AbortSignal.any([stopping, AbortSignal.timeout(context.limits.adoptTimeoutMs)]);
    const made = await runSteps(adoptSteps, { site, phases: site.phases, holdings }, signal);
    await holdings.end('started');
    const { addresses, resources, warnings, endedRequests } = pod;
    const phases = () => pod.phases;
    const createdAt = new Date(pod.createdAt);
    const containersBefore: Parameters<typeof publish>[2]['containersBefore'] = (containerSite) =>
      made.containers.map((found) => restoreContainer(found, containerSite));
    const facts = { addresses, phases, resources, warnings, createdAt, containersBefore, endedRequests };
    outcome.isTakenOver = true;
    const sandbox = publish(made, site, facts, new Holdings().takeFrom(holdings));
    await sandbox.saved;
    return sandbox;
  } catch (error) {
    if (!stopping.aborted) await undone(holdings, context, error instanceof ForeignAgent);
    throw error;
  }
}

/** Undoes everything but the directory; `endedOf` ends what could not be undone. `isLeft`: the machine goes on. */
async function undone(holdings: Holdings, { surroundings: { log } }: TakingContext, isLeft: boolean): Promise<void> {
  try {
    await (isLeft ? holdings.leave() : holdings[Symbol.asyncDispose]());
  } catch (error) {
    log.error('sandbox not completely cleaned up', error);
  }
}

/** Lists a sandbox with a record of a newer version; as failed if its machine is gone. */
async function leaveNewer(
  { path, record, why }: Extract<Fate, { readonly kind: 'newer' }>,
  context: TakingContext,
  stopping: AbortSignal,
): Promise<LeftSandbox> {
  const { parts, limits, surroundings } = context;
  const signal = AbortSignal.any([stopping, AbortSignal.timeout(limits.adoptTimeoutMs)]);
  const tried = async <T>(what: string, take: () => Promise<T | undefined>): Promise<T | undefined> => {
    try {
      return await take();
    } catch (error) {
      if (stopping.aborted) throw error;
      surroundings.log.warn(`${what} not taken over`, { sandbox: record.id, why: messageOf(error) });
      return undefined;
    }
  };
  const attachment = await tried('attachment', () => parts.network.adopt(record.id, signal)); // keeps its host ports
  const recorded = record.machine;
  const machine = recorded && (await tried('machine', () => parts.driver.adopt(recorded, signal)));
  const sandbox = await leave({ record, path, why, machine, attachment }, context);
  const runs = machine !== undefined || (recorded !== undefined && (await isRunning(recorded)));
  if (!runs) await sandbox.lose('its machine ended while no podvm ran');
  return sandbox;
}

type Left = Pick<LeftParts, 'record' | 'path' | 'why' | 'machine'> & { readonly attachment: Attachment | undefined };

async function leave({ record, path, why, machine, attachment }: Left, context: TakingContext): Promise<LeftSandbox> {
  const { names, parts, surroundings, userIds } = context;
  const { log, nowMs } = surroundings;
  const user = userIds.take(record.uid);
  const pod = await readAnyPod(path);
  const keptFor = pod?.spec.keptFor ?? (await readAnyOwner(path));
  const containers = await new ContainerRecords(path).list().catch(() => []);
  let attached = attachment;
  const end = async () => {
    await machine?.kill();
    await endRemains(path, parts.driver, log);
    attached ??= await parts.network.adopt(record.id, new AbortController().signal);
    await attached?.[Symbol.asyncDispose]();
  };
  const held = { record, pod, keptFor, path, containers };
  const left = { ...held, why, machine, end, nowMs, log: log.with({ sandbox: record.id }) };
  return new LeftSandbox(left, [names.reserve(pod?.spec ?? { ...record, uid: record.podUid }), user], context);
}

async function endedOf(record: AdoptableRecord, path: string, context: TakingContext): Promise<EndedSandbox> {
  const { names, parts, surroundings } = context;
  await endRemains(path, parts.driver, surroundings.log).catch((error: unknown) => {
    surroundings.log.error('sandbox not completely ended', error, { sandbox: record.id });
  });
  const records = new ContainerRecords(path);
  const why = record.pod.failure ?? 'the sandbox was stopped';
  const now = new Date(surroundings.nowMs()).toISOString();
  const lost = { exitCode: 137, reason: 'SandboxFailed', why } as const;
  const containers = (await records.list().catch(() => [])).map((each) => {
    const startedAt = each.startedAt ?? each.createdAt; // later than now, if the host's date was set back
    return { ...each, exit: each.exit ?? { ...lost, finishedAt: startedAt > now ? startedAt : now } };
  });
  for (const container of containers) {
    await records.save(container).catch((error: unknown) => {
      surroundings.log.error('exit of a container not recorded', error, { sandbox: record.id });
    });
  }
  return new EndedSandbox(record, path, containers, names.reserve(record.pod.spec), context);
}
