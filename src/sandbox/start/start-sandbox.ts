import { messageOf } from '#base/errors.ts';
import { plainAddresses } from '../container/etc-files.ts';
import { checkSandboxSpec } from '../container/check-spec.ts';
import type { Log } from '#host/log/log.ts';
import { ContainerRecords } from '../container/container-record.ts';
import { Holdings } from '../state/holdings.ts';
import type { Kept, LiveParts } from '../live/live-parts.ts';
import { LiveSandbox } from '../live/live-sandbox.ts';
import { createPhases } from '../state/phases.ts';
import { KeptRecord, recordVersionOf, type PodRecord } from '../recovery/record.ts';
import { recordedSpecOf } from '../recovery/spec-record.ts';
import { machineSizeOf } from '../resources.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { stricterOf, type TemplateChoice } from '../spec/template-choice.ts';
import { checkUserNamespace } from '../spec/user-namespace.ts';
import { blockPathsOf } from '../volume/block-volumes.ts';
import { checkPushed } from '../volume/push-volume.ts';
import { makeRoom } from './memory-room.ts';
import {
  admissionSteps,
  madeForPod,
  recordedOwner,
  startSteps,
  type PodContext,
  type PodSite,
  type StartMade,
} from './pod-steps.ts';
import type { Pool } from './pool.ts';
import { watchForRehearsal } from './rehearse.ts';
import { runSteps } from './run-steps.ts';

export interface TakingContext extends PodContext {
  /** The most that the node's pods may share. */
  readonly template: TemplateChoice;
}

export interface StartContext extends TakingContext {
  readonly pool: Pool;
}

/**
 * Starts a sandbox until it is `ready`, by the table of steps in `pod-steps.ts`. The steps of its machine are already done
 * if one waits in the pool. On any error or abort, what was made is undone, in reverse order, and later if that fails.
 */
export async function startSandbox(
  spec: SandboxSpec,
  context: StartContext,
  signal: AbortSignal,
): Promise<LiveSandbox> {
  const holdings = new Holdings();
  await using _undoing = context.leftOvers.undoing(holdings);
  const site = siteOf(spec, context);
  const run = { site, phases: site.phases, holdings };
  const admitted = await runSteps(admissionSteps, run, signal);
  await makeRoom(context, context.gate.inside);
  const rehearse = watchForRehearsal(context.surroundings);
  const spare = context.pool.take(site.order);
  if (spare !== undefined) holdings.takeFrom(spare.holdings);
  const done = { ...admitted, ...(spare?.made ?? madeForPod) };
  const made = await runSteps(startSteps, { ...run, done }, signal);
  await holdings.end('started');
  const { order, phases } = site;
  const { machine, guest } = made;
  const others = context.gate.inside;
  rehearse({ machine, guest, size: order.size, isExercised: spare !== undefined, others }).catch((error: unknown) =>
    context.surroundings.log.debug('container not rehearsed', { why: messageOf(error) }),
  );
  phases.end();
  const facts = {
    addresses: plainAddresses(made.network.interfaces.flatMap((each) => each.addresses)),
    phases: () => phases.timeline(),
    createdAt: new Date(context.surroundings.nowMs()),
    resources: order.size.resources,
    warnings: order.size.warnings,
  };
  const sandbox = publish(made, site, facts, new Holdings().takeFrom(holdings));
  await sandbox.saved;
  return sandbox;
}

export function siteOf(spec: SandboxSpec, context: TakingContext): PodSite {
  const { limits, surroundings } = context;
  const { network, netns, template, hostPorts, annotations, dns } = spec;
  const what = `pod ${spec.namespace}/${spec.name}`;
  checkSandboxSpec(what, spec);
  if (spec.userNamespace !== undefined) checkUserNamespace(what, spec.userNamespace);
  for (const volume of spec.volumes) {
    if (volume.kind === 'push') checkPushed(volume.name, volume.files, limits.pushedTrees);
  }
  const size = machineSizeOf(what, spec.resources, limits.size);
  const pod = { podName: spec.name, podNamespace: spec.namespace, podUid: spec.uid };
  const owner = { ...pod, hostPorts, annotations, dns, ...(netns === undefined ? {} : { netns }) };
  return {
    spec,
    context,
    owner,
    phases: createPhases(surroundings.monotonicNs),
    order: {
      size,
      network,
      template: stricterOf(template, context.template),
      owner,
      ...(spec.cgroupParent === undefined ? {} : { cgroupParent: spec.cgroupParent }),
    },
    blockPaths: blockPathsOf(spec),
  };
}

/** Facts about a sandbox that its parts do not contain. */
type Facts = Pick<LiveParts, 'addresses' | 'phases' | 'createdAt' | 'resources' | 'warnings'> & {
  readonly containersBefore?: NonNullable<LiveParts['containersBefore']>;
  readonly endedRequests?: PodRecord['endedRequests'] | undefined;
};

export function publish(
  made: StartMade,
  { spec, context, phases }: PodSite,
  facts: Facts,
  holdings: Holdings,
): LiveSandbox {
  const { identity, directory, machine, attachment, guest, imageDisks, attachable, connection } = made;
  const { id } = identity.record;
  const log = context.surroundings.log.with({ sandbox: id, pod: `${spec.namespace}/${spec.name}` });
  log.info(facts.containersBefore === undefined ? 'sandbox started' : 'sandbox taken over', phases.fields());
  const kept = spec.isKept === true ? keep(made, spec, facts, log) : undefined;
  return new LiveSandbox({
    id,
    spec,
    directory: directory.path,
    machine,
    attachment,
    guest,
    imageDisks,
    modulesDisk: attachable.modulesDisk,
    mounts: attachable.mounts,
    connection,
    ...facts,
    parts: context.parts,
    versions: made.record.parts ?? context.parts.versions,
    limits: context.limits,
    counts: context.counts,
    surroundings: { ...context.surroundings, log },
    removals: context.removals,
    holdings,
    ...(kept === undefined ? {} : { kept }),
  });
}

/** Begins the records from which the next process takes the sandbox over. */
function keep(made: StartMade, spec: SandboxSpec, facts: Facts, log: Log): Kept {
  const { record, directory, machine, imageDisks, connection } = made;
  const { addresses, phases, createdAt, resources, warnings, endedRequests } = facts;
  const pod: PodRecord = {
    spec: recordedSpecOf(spec),
    state: 'ready',
    createdAt: createdAt.toISOString(),
    accelerator: machine.accelerator,
    addresses: [...addresses],
    phases: [...phases()],
    isConnected: connection.isMade,
    resources,
    warnings: [...warnings],
    images: [...imageDisks.plugged],
    ...(endedRequests === undefined ? {} : { endedRequests }),
  };
  const whole = { ...record, ...recordedOwner(spec), version: recordVersionOf(spec), pod } as const;
  const onTrouble = (error: unknown) => log.error('sandbox not recorded', error);
  const kept = new KeptRecord(directory.path, whole, onTrouble);
  imageDisks.onPlugged((images) => kept.change({ images: [...images] }));
  kept.change({}).catch(onTrouble);
  return { record: kept, containers: new ContainerRecords(directory.path), endedRequests };
}
