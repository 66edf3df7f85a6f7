import { messageOf } from '#base/errors.ts';
import type { AttachmentOwner, GuestNetwork } from '#network/network.ts';
import { createBlockDisks } from '../volume/block-disks.ts';
import { createBlockMode, createDeviceMode } from '../volume/block-mode.ts';
import { blockPathsOf } from '../volume/block-volumes.ts';
import { checkSandboxSpec } from '../container/check-spec.ts';
import { plainAddresses } from '../container/etc-files.ts';
import type { Gate } from '#host/gate.ts';
import { createContainerMounts, type ContainerMounts } from '../volume/container-mounts.ts';
import type { HostMode } from '../volume/host-mode.ts';
import { createImageMode } from '../volume/image-mode.ts';
import { createImageDisks, type ImageDisks } from '../volume/image-disks.ts';
import { createKubeletMode } from './kubelet-mode.ts';
import { LiveSandbox } from '../live-sandbox.ts';
import { createModulesDisk } from '../container/modules-disk.ts';
import type { Names } from '../names.ts';
import { createPhases, type PhaseClock } from '../phases.ts';
import type { Parts } from '../parts.ts';
import type { Pool } from './pool.ts';
import {
  explain,
  prepareSandbox,
  whileAlive,
  type MovingIn,
  type OpenedMachine,
  type PrepareContext,
  type PreparedSandbox,
  type PrepareOrder,
} from './prepare-sandbox.ts';
import { configureGuest, connectGuest } from './configure-guest.ts';
import { makeVolumes } from '../volume/make-volumes.ts';
import { checkPushed } from '../volume/push-volume.ts';
import { writeRecord } from '../recovery/record.ts';
import { limitOnHost } from '../resize.ts';
import { machineSizeOf } from '../resources.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { createShareMode } from '../volume/share-mode.ts';
import { stricterOf, type TemplateChoice } from '../template-choice.ts';
import { together } from '#host/together.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { checkUserNamespace } from '../user-namespace.ts';
import { createVolumeDisks, type VolumeDisks } from '../volume/volume-disks.ts';

export interface StartContext extends PrepareContext {
  readonly names: Names;
  readonly pool: Pool;
  readonly gate: Gate;
  /** What the node's pods may share at most. */
  readonly template: TemplateChoice;
}

interface Plan {
  readonly spec: SandboxSpec;
  readonly context: StartContext;
  readonly order: PrepareOrder;
  readonly owner: AttachmentOwner;
  readonly phases: PhaseClock;
  readonly blockPaths: ReadonlySet<string>;
}

/** From nothing to a sandbox that is `ready`. On any error or abort, what was made is undone, in reverse order. */
export async function startSandbox(
  spec: SandboxSpec,
  context: StartContext,
  signal: AbortSignal,
): Promise<LiveSandbox> {
  await using kept = new AsyncDisposableStack(); // for as long as the sandbox is known
  await using running = new AsyncDisposableStack(); // for as long as it runs; undone first
  kept.use(context.names.reserve(spec));
  const plan = planStart(spec, context);
  const claims = running.use(new AsyncDisposableStack()); // of what its machine writes to: undone after that
  using _turn = await plan.phases.time('turn came', context.gate.enter(signal));
  const spare = context.pool.take(plan.order);
  const prepared = spare ?? (await prepareSandbox(plan.order, context, plan.phases, movingIn(plan), signal));
  kept.use(prepared.kept);
  running.use(prepared.running);

  const { machine } = prepared;
  const alive = whileAlive(machine, signal);
  try {
    const imageDisks = prepared.images ?? (await giveToPod(plan, prepared, alive));
    const network = await prepared.attachment.connect(alive); // done already
    const kubelet = running.use(kubeletMode(plan, prepared));
    const mounts = running.use(containerMounts(plan, prepared, { imageDisks, kubelet, claims }));
    alive.throwIfAborted(); // from here the sandbox itself hears of the machine's end
    return publish(plan, prepared, { network, imageDisks, mounts }, running.move(), kept.move());
  } catch (error) {
    throw await explain(error, machine, alive, signal);
  }
}

function planStart(spec: SandboxSpec, context: StartContext): Plan {
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
  const phases = createPhases(surroundings.monotonicNs);
  return {
    spec,
    context,
    owner,
    phases,
    order: { size, network, template: stricterOf(template, context.template), owner },
    blockPaths: blockPathsOf(spec),
  };
}

function movingIn(plan: Plan): MovingIn<ImageDisks> {
  const { spec, context, order, phases } = plan;
  return {
    greet: (guest, signal) => configureGuest(spec, guest, { surroundings: context.surroundings, phases }, signal),
    plugImages: (opened, signal) => plugImages(plan, opened, signal),
    makeVolumes: (opened, signal) => plan.phases.time('volumes made', makePodVolumes(plan, opened, signal)),
    connect: (guest, network, signal) =>
      connectGuest(spec, guest, { network, resources: order.size.resources, phases }, signal),
  };
}

/** A machine that waited becomes the pod's: on record, on the network, and in the guest. */
async function giveToPod(
  plan: Plan,
  spare: OpenedMachine & Pick<PreparedSandbox, 'attachment'>,
  signal: AbortSignal,
): Promise<ImageDisks> {
  const { spec, context, order, owner, phases } = plan;
  const { record, directory, attachment, machine, guest } = spare;
  attachment.assign(owner);
  const named = { ...record, namespace: spec.namespace, name: spec.name, podUid: spec.uid };
  const greeted = Promise.withResolvers<void>();
  const [imageDisks] = await together(signal, [
    (both) => plugImages(plan, spare, both),
    async (both) => {
      await configureGuest(spec, guest, { surroundings: context.surroundings, phases }, both);
      greeted.resolve();
      await phases.time('volumes made', makePodVolumes(plan, spare, both));
    },
    () => writeRecord(directory.path, named),
    () => limitOnHost(machine, order.size.resources, context.limits.size),
    async (both) => {
      const network = await phases.time('network connected', attachment.connect(both));
      await untilAborted(greeted.promise, both);
      await connectGuest(spec, guest, { network, resources: order.size.resources, phases }, both);
    },
  ]);
  return imageDisks;
}

/** Ahead of the containers, which wait for it no longer then. What fails here fails again, and is told, for them. */
async function plugImages(
  { spec, context, phases }: Plan,
  { machine, guest, directory, running }: OpenedMachine,
  signal: AbortSignal,
): Promise<ImageDisks> {
  const disks = running.use(createImageDisks(machine, guest, directory.machinePath));
  for (const reference of spec.images) {
    try {
      await disks.attach(await context.parts.images.hold(reference, 'Never', signal), phases, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.debug('image not plugged ahead', { image: reference, why: messageOf(error) });
    }
  }
  return disks;
}

async function makePodVolumes(plan: Plan, opened: OpenedMachine, signal: AbortSignal): Promise<void> {
  const disks = opened.running.use(volumeDisksOf(plan, opened));
  await makeVolumes(plan.spec, { guest: opened.guest, disks, size: plan.order.size }, signal);
}

/** What is attached to the machine for its containers. */
interface Attached {
  readonly network: GuestNetwork;
  readonly imageDisks: ImageDisks;
  readonly mounts: ContainerMounts;
}

function volumeDisksOf({ context }: Plan, { record, directory, machine, guest }: OpenedMachine): VolumeDisks {
  return createVolumeDisks({
    machine,
    guest,
    makeVolumeDisk: (...request) => context.parts.makeVolumeDisk(...request),
    machineDirectory: directory.machinePath,
    ownerUid: record.uid,
  });
}

function kubeletMode({ spec, context }: Plan, { record, guest }: OpenedMachine) {
  const log = context.surroundings.log.with({ sandbox: record.id });
  return createKubeletMode({ podUid: spec.uid, guest, trees: context.limits.pushedTrees, log });
}

interface MountNeeds {
  readonly imageDisks: ImageDisks;
  readonly kubelet: HostMode;
  /** Of block volumes. */
  readonly claims: AsyncDisposableStack;
}

function containerMounts(
  { spec, context, blockPaths }: Plan,
  { record, machine, guest }: OpenedMachine,
  { imageDisks, kubelet, claims }: MountNeeds,
): ContainerMounts {
  const { parts, surroundings, limits } = context;
  const log = surroundings.log.with({ sandbox: record.id });
  const { serveFiles, images } = parts;
  const hasOwnUsers = spec.userNamespace !== undefined;
  const claimBlock: Parts['claimBlock'] = (...request) => parts.claimBlock(...request);
  const disks = createBlockDisks({ machine, guest, claims, claimBlock, limits, log });
  const block = { paths: blockPaths, disks, guest, fsGroup: spec.fsGroup, limits, log };
  const share = createShareMode({ sandboxId: record.id, hasOwnUsers, machine, guest, serveFiles, log });
  return createContainerMounts({
    volumes: spec.volumes,
    hostModes: [kubelet, createBlockMode(block), share],
    imageMode: createImageMode({ images, imageDisks, guest, monotonicNs: surroundings.monotonicNs }),
    deviceMode: createDeviceMode(block),
    log,
  });
}

function publish(
  { spec, context, order, phases }: Plan,
  { record, directory, machine, guest, retried }: PreparedSandbox<unknown>,
  { network, imageDisks, mounts }: Attached,
  running: AsyncDisposableStack,
  kept: AsyncDisposableStack,
): LiveSandbox {
  const log = context.surroundings.log.with({ sandbox: record.id, pod: `${spec.namespace}/${spec.name}` });
  log.info('sandbox started', phases.fields());
  return new LiveSandbox({
    id: record.id,
    spec,
    directory: directory.path,
    machine,
    guest,
    imageDisks,
    modulesDisk: createModulesDisk(machine, guest, directory.machinePath, context.parts.modulesDisk),
    mounts,
    addresses: plainAddresses(network.interfaces.flatMap((each) => each.addresses)),
    phases: phases.timeline(),
    createdAt: new Date(context.surroundings.nowMs()),
    resources: order.size.resources,
    warnings: order.size.warnings,
    parts: context.parts,
    limits: context.limits,
    surroundings: { ...context.surroundings, log },
    running,
    retried,
    kept,
  });
}
