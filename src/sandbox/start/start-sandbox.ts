import { messageOf } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { AttachmentOwner, GuestNetwork } from '#network/network.ts';
import { createBlockDisks } from '../volume/block-disks.ts';
import { createBlockMode, createDeviceMode } from '../volume/block-mode.ts';
import { blockPathsOf } from '../volume/block-volumes.ts';
import { checkSandboxSpec } from '../container/check-spec.ts';
import { scratchSerial } from '../container/create-container.ts';
import { etcHostsOf, plainAddresses, resolvConfOf } from '../container/etc-files.ts';
import type { Gate } from '#host/gate.ts';
import type { ConfigureParams } from '../guest-calls.ts';
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
import { checkPushed, pushVolume } from '../volume/push-volume.ts';
import { writeRecord } from '../recovery/record.ts';
import { kernelModulesOf } from '../container/kernel-modules.ts';
import { limitOnHost } from '../resize.ts';
import { cgroupResourcesOf, machineSizeOf } from '../resources.ts';
import type { SandboxSpec, SandboxVolume } from '../sandbox.ts';
import { createShareMode } from '../volume/share-mode.ts';
import { stricterOf, type TemplateChoice } from '../template-choice.ts';
import { together } from '#host/together.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { checkUserNamespace, type UserNamespace } from '../user-namespace.ts';
import { createVolumeDisks, roomOfOwn, type VolumeDisks } from '../volume/volume-disks.ts';

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
  return {
    greet: (guest, signal) => greet(plan, guest, signal),
    plugImages: (opened, signal) => plugImages(plan, opened, signal),
    makeVolumes: (opened, signal) => plan.phases.time('volumes made', makeVolumes(plan, opened, signal)),
    connect: (guest, network, signal) => connect(plan, guest, network, signal),
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
      await greet(plan, guest, both);
      greeted.resolve();
      await phases.time('volumes made', makeVolumes(plan, spare, both));
    },
    () => writeRecord(directory.path, named),
    () => limitOnHost(machine, order.size.resources, context.limits.size),
    async (both) => {
      const network = await phases.time('network connected', attachment.connect(both));
      await untilAborted(greeted.promise, both);
      await connect(plan, guest, network, both);
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

async function greet({ spec, context, phases }: Plan, guest: Link, signal: AbortSignal): Promise<void> {
  const { surroundings } = context;
  const configuring = guest.call(
    'configure',
    {
      hostname: spec.hostname,
      realtimeMs: surroundings.nowMs(),
      entropy: Buffer.from(surroundings.randomBytes(64)).toString('base64'),
      machineId: Buffer.from(surroundings.randomBytes(16)).toString('hex'),
      sharePidNamespace: spec.sharePidNamespace,
      kernelModules: kernelModulesOf(spec),
      ...(spec.sctp ? { sctp: true } : {}),
      ...(spec.userNamespace === undefined ? {} : { userNamespace: guestUsersOf(spec.userNamespace) }),
    },
    signal,
  );
  phases.add('guest', (await phases.time('guest configured', configuring)).phases);
}

async function connect(
  { spec, order, phases }: Plan,
  guest: Link,
  network: GuestNetwork,
  signal: AbortSignal,
): Promise<void> {
  const addresses = network.interfaces.flatMap((each) => each.addresses);
  const connecting = guest.call(
    'connect',
    {
      etcHosts: etcHostsOf(spec, addresses),
      resolvConf: resolvConfOf(spec, network.dns),
      sysctls: { ...defaultSysctls, ...spec.sysctls },
      network:
        network.interfaces.length === 0
          ? null
          : {
              interfaces: network.interfaces.map((each) => ({ ...each, addresses: [...each.addresses] })),
              routes: network.routes.map((route) => ({ ...route })),
            },
      resources: cgroupResourcesOf(order.size.resources),
    },
    signal,
  );
  phases.add('guest', (await phases.time('guest connected', connecting)).phases);
}

/**
 * As the world of kubelets has it (containerd's `enable_unprivileged_ports` and `enable_unprivileged_icmp`): every port
 * may be bound, and every group may ping. Both hold for IPv6 as well.
 */
const defaultSysctls = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
} as const;

/** The wire's lists are its own. */
function guestUsersOf({ uids, gids }: UserNamespace): NonNullable<ConfigureParams['userNamespace']> {
  return { uids: [...uids], gids: [...gids] };
}

/** So many at a time: most of what a disk of its own takes is waiting, for host and guest in turn. */
const volumesAtATime = 4;

async function makeVolumes(plan: Plan, opened: OpenedMachine, signal: AbortSignal): Promise<void> {
  const disks = opened.running.use(volumeDisksOf(plan, opened));
  const left = plan.spec.volumes.values();
  const makeSome = async (both: AbortSignal) => {
    for (const volume of left) await makeVolume(plan, opened.guest, disks, volume, both);
  };
  await together(
    signal,
    Array.from({ length: volumesAtATime }, () => makeSome),
  );
}

async function makeVolume(
  { spec, order }: Plan,
  guest: Link,
  disks: VolumeDisks,
  volume: SandboxVolume,
  signal: AbortSignal,
): Promise<void> {
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
