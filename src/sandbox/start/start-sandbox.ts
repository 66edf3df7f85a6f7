import { plainAddresses } from '../container/etc-files.ts';
import { checkSandboxSpec } from '../container/check-spec.ts';
import { Holdings } from '../holdings.ts';
import { LiveSandbox } from '../live-sandbox.ts';
import { createPhases } from '../phases.ts';
import { machineSizeOf } from '../resources.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { stricterOf, type TemplateChoice } from '../template-choice.ts';
import { checkUserNamespace } from '../user-namespace.ts';
import { blockPathsOf } from '../volume/block-volumes.ts';
import { checkPushed } from '../volume/push-volume.ts';
import { admissionSteps, madeForPod, startSteps, type PodContext, type PodSite, type StartMade } from './pod-steps.ts';
import type { Pool } from './pool.ts';
import { runSteps } from './run-steps.ts';

export interface StartContext extends PodContext {
  readonly pool: Pool;
  /** The most that the node's pods may share. */
  readonly template: TemplateChoice;
}

/**
 * Starts a sandbox until it is `ready`, by the table of steps in `pod-steps.ts`. The steps of its machine are already done
 * if one waits in the pool. On any error or abort, what was made is undone, in reverse order.
 */
export async function startSandbox(
  spec: SandboxSpec,
  context: StartContext,
  signal: AbortSignal,
): Promise<LiveSandbox> {
  await using holdings = new Holdings();
  const site = siteOf(spec, context);
  const run = { site, phases: site.phases, holdings };
  const admitted = await runSteps(admissionSteps, run, signal);
  const spare = context.pool.take(site.order);
  if (spare !== undefined) holdings.takeFrom(spare.holdings);
  const done = { ...admitted, ...(spare?.made ?? madeForPod) };
  const made = await runSteps(startSteps, { ...run, done }, signal);
  await holdings.end('started');
  return publish(made, site, new Holdings().takeFrom(holdings));
}

function siteOf(spec: SandboxSpec, context: StartContext): PodSite {
  const { limits, surroundings } = context;
  const { network, template, hostPorts, annotations, dns } = spec;
  const what = `pod ${spec.namespace}/${spec.name}`;
  checkSandboxSpec(what, spec);
  if (spec.userNamespace !== undefined) checkUserNamespace(what, spec.userNamespace);
  for (const volume of spec.volumes) {
    if (volume.kind === 'push') checkPushed(volume.name, volume.files, limits.pushedTrees);
  }
  const size = machineSizeOf(what, spec.resources, limits.size);
  const owner = { podName: spec.name, podNamespace: spec.namespace, podUid: spec.uid, hostPorts, annotations, dns };
  return {
    spec,
    context,
    owner,
    phases: createPhases(surroundings.monotonicNs),
    order: { size, network, template: stricterOf(template, context.template), owner },
    blockPaths: blockPathsOf(spec),
  };
}

function publish(made: StartMade, { spec, context, order, phases }: PodSite, holdings: Holdings): LiveSandbox {
  const { identity, directory, machine, guest, imageDisks, network, attachable } = made;
  const { id } = identity.record;
  const log = context.surroundings.log.with({ sandbox: id, pod: `${spec.namespace}/${spec.name}` });
  log.info('sandbox started', phases.fields());
  return new LiveSandbox({
    id,
    spec,
    directory: directory.path,
    machine,
    guest,
    imageDisks,
    modulesDisk: attachable.modulesDisk,
    mounts: attachable.mounts,
    addresses: plainAddresses(network.interfaces.flatMap((each) => each.addresses)),
    phases: phases.timeline(),
    createdAt: new Date(context.surroundings.nowMs()),
    resources: order.size.resources,
    warnings: order.size.warnings,
    parts: context.parts,
    limits: context.limits,
    surroundings: { ...context.surroundings, log },
    holdings,
  });
}
