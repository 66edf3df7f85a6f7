import { messageOf } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { AttachmentOwner, GuestNetwork } from '#network/network.ts';
import { createBlockDisks } from './block-disks.ts';
import { createBlockMode, createDeviceMode } from './block-mode.ts';
import { blockPathsOf } from './block-volumes.ts';
import { scratchSerial } from './create-container.ts';
import { etcHostsOf, plainAddresses, resolvConfOf } from './etc-files.ts';
import type { Gate } from './gate.ts';
import type { ConfigureParams } from './guest-calls.ts';
import { createContainerMounts, type ContainerMounts } from './container-mounts.ts';
import type { HostMode } from './host-mode.ts';
import { createImageMode } from './image-mode.ts';
import { createImageDisks, type ImageDisks } from './image-disks.ts';
import { createKubeletMode } from './kubelet-mode.ts';
import { LiveSandbox } from './live-sandbox.ts';
import type { Names } from './names.ts';
import { createPhases, type PhaseClock } from './phases.ts';
import type { Parts } from './parts.ts';
import type { Pool } from './pool.ts';
import {
  explain,
  prepareSandbox,
  whileAlive,
  type PrepareContext,
  type PreparedSandbox,
  type PrepareOrder,
} from './prepare-sandbox.ts';
import { checkPushed, pushVolume } from './push-volume.ts';
import { writeRecord } from './record.ts';
import { kernelModulesOf } from './kernel-modules.ts';
import { limitOnHost } from './resize.ts';
import { cgroupResourcesOf, machineSizeOf } from './resources.ts';
import type { SandboxSpec } from './sandbox.ts';
import { createShareMode } from './share-mode.ts';
import { stricterOf, type TemplateChoice } from './template-choice.ts';
import { together } from './together.ts';
import { checkUserNamespace, type UserNamespace } from './user-namespace.ts';
import { createVolumeDisks, roomOfOwn, type VolumeDisks } from './volume-disks.ts';

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
  const prepared = spare ?? (await prepareSandbox(plan.order, context, plan.phases, signal));
  kept.use(prepared.kept);
  running.use(prepared.running);

  const { machine, guest } = prepared;
  const alive = whileAlive(machine, signal);
  try {
    const imageDisks = running.use(createImageDisks(machine, guest, prepared.directory.machinePath));
    const volumeDisks = running.use(volumeDisksOf(plan, prepared));
    const kubelet = running.use(kubeletMode(plan, prepared));
    const mounts = running.use(containerMounts(plan, prepared, { imageDisks, kubelet, claims }));
    const [network] = await together(alive, [
      (both) => becomeThePods(plan, prepared, { isSpare: spare !== undefined, volumeDisks }, both),
      (both) => plugImages(plan, imageDisks, both),
    ]);
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

/** On record, on the network, and in the guest. */
async function becomeThePods(
  plan: Plan,
  prepared: PreparedSandbox,
  { isSpare, volumeDisks }: { readonly isSpare: boolean; readonly volumeDisks: VolumeDisks },
  signal: AbortSignal,
): Promise<GuestNetwork> {
  const { phases } = plan;
  if (isSpare) await giveToPod(plan, prepared, signal);
  const network = await prepared.attachment.connect(signal); // done already, or just now
  await phases.time('guest configured', configure(plan, prepared.guest, network, signal));
  await phases.time('volumes made', makeVolumes(plan, prepared.guest, volumeDisks, signal));
  return network;
}

async function giveToPod(
  { spec, context, owner, phases }: Plan,
  spare: PreparedSandbox,
  signal: AbortSignal,
): Promise<void> {
  const { record, directory, attachment, machine } = spare;
  attachment.assign(owner);
  const named = { ...record, namespace: spec.namespace, name: spec.name, podUid: spec.uid };
  await together(signal, [
    () => writeRecord(directory.path, named),
    () => limitOnHost(machine, spec.resources, context.limits.size),
    (both) => phases.time('network connected', attachment.connect(both)),
  ]);
}

/** Ahead of the containers, which wait for it no longer then. What fails here fails again, and is told, for them. */
async function plugImages({ spec, context, phases }: Plan, disks: ImageDisks, signal: AbortSignal): Promise<void> {
  for (const reference of spec.images) {
    try {
      await disks.attach(await context.parts.images.hold(reference, 'Never', signal), phases, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.debug('image not plugged ahead', { image: reference, why: messageOf(error) });
    }
  }
}

async function configure(
  { spec, context, phases }: Plan,
  guest: Link,
  network: GuestNetwork,
  signal: AbortSignal,
): Promise<void> {
  const addresses = network.interfaces.flatMap((each) => each.addresses);
  const { surroundings } = context;
  const configured = await guest.call(
    'configure',
    {
      hostname: spec.hostname,
      etcHosts: etcHostsOf(spec, addresses),
      resolvConf: resolvConfOf(spec, network.dns),
      sysctls: { ...spec.sysctls },
      realtimeMs: surroundings.nowMs(),
      entropy: Buffer.from(surroundings.randomBytes(64)).toString('base64'),
      machineId: Buffer.from(surroundings.randomBytes(16)).toString('hex'),
      network:
        network.interfaces.length === 0
          ? null
          : {
              interfaces: network.interfaces.map((each) => ({ ...each, addresses: [...each.addresses] })),
              routes: network.routes.map((route) => ({ ...route })),
            },
      sharePidNamespace: spec.sharePidNamespace,
      kernelModules: kernelModulesOf(spec),
      ...(spec.sctp ? { sctp: true } : {}),
      ...(spec.userNamespace === undefined ? {} : { userNamespace: guestUsersOf(spec.userNamespace) }),
      resources: cgroupResourcesOf(spec.resources),
    },
    signal,
  );
  phases.add('guest', configured.phases);
}

/** The wire's lists are its own. */
function guestUsersOf({ uids, gids }: UserNamespace): NonNullable<ConfigureParams['userNamespace']> {
  return { uids: [...uids], gids: [...gids] };
}

async function makeVolumes({ spec, order }: Plan, guest: Link, disks: VolumeDisks, signal: AbortSignal): Promise<void> {
  for (const volume of spec.volumes) {
    const { name, kind } = volume;
    const room = roomOfOwn(volume, order.size);
    const disk = room === undefined ? scratchSerial : await disks.plug(room, signal);
    const isLimited = volume.kind !== 'push' && volume.sizeLimitBytes !== undefined && room === undefined;
    await guest.call(
      'createVolume',
      {
        name,
        kind,
        ...(kind === 'scratch' ? { disk } : {}),
        ...(isLimited ? { sizeLimitBytes: volume.sizeLimitBytes } : {}),
        ...(spec.fsGroup === undefined ? {} : { fsGroup: spec.fsGroup }),
      },
      signal,
    );
    if (volume.kind === 'push') await pushVolume(guest, name, volume.files, signal);
  }
}

/** What is attached to the machine for its containers. */
interface Attached {
  readonly network: GuestNetwork;
  readonly imageDisks: ImageDisks;
  readonly mounts: ContainerMounts;
}

function volumeDisksOf({ context }: Plan, { record, directory, machine, guest }: PreparedSandbox): VolumeDisks {
  return createVolumeDisks({
    machine,
    guest,
    makeVolumeDisk: (...request) => context.parts.makeVolumeDisk(...request),
    machineDirectory: directory.machinePath,
    ownerUid: record.uid,
  });
}

function kubeletMode({ spec, context }: Plan, { record, guest }: PreparedSandbox) {
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
  { record, machine, guest }: PreparedSandbox,
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
  { spec, context, phases }: Plan,
  { record, directory, machine, guest, retried }: PreparedSandbox,
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
    mounts,
    addresses: plainAddresses(network.interfaces.flatMap((each) => each.addresses)),
    phases: phases.timeline(),
    createdAt: new Date(context.surroundings.nowMs()),
    parts: context.parts,
    limits: context.limits,
    surroundings: { ...context.surroundings, log },
    running,
    retried,
    kept,
  });
}
