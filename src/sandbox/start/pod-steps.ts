import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import type { Gate } from '#host/gate.ts';
import type { AttachmentOwner, GuestNetwork } from '#network/network.ts';
import { createModulesDisk, type ModulesBefore, type ModulesDisk } from '../container/modules-disk.ts';
import type { Names } from '../names.ts';
import type { NodeCounts } from '../figures/node-counts.ts';
import type { Parts } from '../parts.ts';
import { writeRecord } from '../recovery/record.ts';
import type { GuestConnection } from '../live/guest-connection.ts';
import { limitOnHost } from '../live/resize.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { createBlockDisks } from '../volume/block-disks.ts';
import { createBlockMode, createDeviceMode } from '../volume/block-mode.ts';
import { createContainerMounts, type ContainerMounts } from '../volume/container-mounts.ts';
import { createImageMode } from '../volume/image-mode.ts';
import { makeVolumes } from '../volume/make-volumes.ts';
import { createShareMode } from '../volume/share-mode.ts';
import { createVolumeDisks, type VolumeDisks } from '../volume/volume-disks.ts';
import { beginConnection, configureGuest, waitsForConnection } from './configure-guest.ts';
import { createKubeletMode } from './kubelet-mode.ts';
import { machineSteps, type MachineContext, type MachineMade, type MachineSite } from './machine-steps.ts';
import { stepOf, type Steps } from './run-steps.ts';

export interface PodContext extends MachineContext {
  readonly names: Names;
  readonly gate: Gate;
  readonly counts: NodeCounts;
}

/** Input of the steps of a pod's start. */
export interface PodSite extends MachineSite {
  readonly context: PodContext;
  readonly spec: SandboxSpec;
  readonly owner: AttachmentOwner;
  /** Paths of the host that are block volumes. */
  readonly blockPaths: ReadonlySet<string>;
}

/** Results of the steps that come before a start takes or makes a machine. */
export interface AdmissionMade {
  readonly name: Disposable;
  /** Claims on block devices: those that a guest did not release are given up when its machine is gone. */
  readonly claims: AsyncDisposableStack;
  readonly turn: Disposable;
}

/** Results of the steps that give a machine of the pool to a pod; a machine made for the pod has them at once. */
interface OwnerMade {
  readonly assigned: void;
  readonly named: void;
  readonly limited: void;
}

export const madeForPod: OwnerMade = { assigned: undefined, named: undefined, limited: undefined };

interface PodMade extends OwnerMade {
  readonly imagesPlugged: void;
  readonly configured: void;
  readonly volumeDisks: VolumeDisks;
  readonly network: GuestNetwork;
  readonly connection: GuestConnection;
  readonly attachable: Attachable;
}

/** Mounts and disks that are attached to the machine when its containers need them. */
interface Attachable {
  readonly mounts: ContainerMounts;
  readonly modulesDisk: ModulesDisk;
  readonly owned: AsyncDisposable;
}

/** Everything that a start makes. */
export type StartMade = AdmissionMade & MachineMade & PodMade;

const admissionStep = stepOf<AdmissionMade, PodSite>();
const step = stepOf<StartMade, PodSite>();
const guestConnected = 'guest connected';
const dispose = (owned: AsyncDisposable) => owned[Symbol.asyncDispose]();

export const admissionSteps: Steps<AdmissionMade, PodSite> = {
  name: admissionStep({
    name: 'name reserved',
    what: 'no other sandbox has the name',
    needs: [],
    run: (_made, { context, spec }) => context.names.reserve(spec),
    undo: (reserved) => reserved[Symbol.dispose](),
    until: 'removed',
  }),
  claims: admissionStep({
    name: 'claims opened',
    what: 'a place for claims on block devices, which are given up only after the machine is gone',
    needs: [],
    run: () => new AsyncDisposableStack(),
    undo: dispose,
  }),
  turn: admissionStep({
    name: 'turn came',
    what: 'twice as many starts go on at a time as there are cores (`src/host/gate.ts`)',
    needs: ['name'],
    run: (_made, { context }, signal) => context.gate.enter(signal),
    undo: (turn) => turn[Symbol.dispose](),
    until: 'started',
  }),
};

const podSteps: Steps<StartMade, PodSite, keyof PodMade> = {
  assigned: step({
    name: 'network assigned',
    what: 'the network knows the pod, and its host ports are taken',
    needs: ['attachment'],
    run: ({ attachment }, { owner }) => attachment.assign(owner),
  }),
  named: step({
    name: 'pod recorded',
    what: 'the pod is in the record',
    needs: ['directory', 'record'],
    run: ({ directory, record }, { spec }) => writeRecord(directory.path, { ...record, ...recordedOwner(spec) }),
  }),
  limited: step({
    name: 'machine limited',
    what: "the machine's cgroup has the pod's limits, and is below the pod's (`src/vm/qemu/cgroup/host-cgroup.ts`)",
    needs: ['machine', 'named'],
    run: ({ machine }, { context, order: { size, cgroupParent } }) =>
      limitOnHost(machine, { ...size, cgroupParent }, context.limits.size),
  }),
  imagesPlugged: step({
    name: 'images plugged',
    what: 'images that the node has are mounted before the containers that will wait for them',
    needs: ['imageDisks'],
    run: plugImages,
  }),
  configured: step({
    name: 'guest configured',
    what: "clock, entropy, names and users are the pod's (`configure` in `src/agent/services.ts`)",
    needs: ['guest'],
    run: ({ guest }, { spec, context: { surroundings }, phases }, signal) =>
      configureGuest(spec, guest, { surroundings, phases }, signal),
  }),
  volumeDisks: step({
    name: 'volumes made',
    what: 'emptyDirs, and configMaps and secrets with their files (`src/sandbox/volume/make-volumes.ts`)',
    needs: ['identity', 'directory', 'machine', 'guest', 'scratchReady', 'configured'],
    run: makeOwnVolumes,
    undo: dispose,
  }),
  network: step({
    name: 'network connected',
    what: 'the CNI chain has run, and its interface is joined with the tap',
    needs: ['attachment', 'assigned'],
    run: ({ attachment }, _site, signal) => attachment.connect(signal),
  }),
  connection: step({
    name: guestConnected,
    what: "addresses, routes, sysctls and limits are the pod's; containers are made meanwhile (`configure-guest.ts`)",
    needs: ['guest', 'configured', 'network'],
    run: connectGuest,
    undo: (connection) => connection.end(),
    lost: ({ made }) => made.then(() => undefined, asError),
  }),
  attachable: step({
    name: 'mounts ready',
    what: 'the ways by which containers get their volumes (`src/sandbox/volume/container-mounts.ts`)',
    needs: ['identity', 'directory', 'machine', 'guest', 'imageDisks', 'claims'],
    run: (made, site) => attachableOf(made, site),
    undo: ({ owned }) => owned[Symbol.asyncDispose](),
  }),
};

/** Returns the part of a sandbox's record that describes its pod. */
export function recordedOwner({ namespace, name, uid, cgroupParent }: SandboxSpec) {
  return { namespace, name, podUid: uid, ...(cgroupParent === undefined ? {} : { cgroupParent }) };
}

function connectGuest(
  { guest, network }: Pick<StartMade, 'guest' | 'network'>,
  { spec, order, phases }: PodSite,
  signal: AbortSignal,
): GuestConnection | Promise<GuestConnection> {
  const connecting = { network, resources: order.size.resources, phases };
  if (waitsForConnection(spec)) {
    const connection = beginConnection(spec, guest, connecting, signal);
    return connection.made.then(() => connection);
  }
  const connection = beginConnection(spec, guest, connecting);
  phases.time(guestConnected, connection.made).catch(() => undefined); // those that wait for it learn its error
  return connection;
}

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(messageOf(thrown)));

const { scratchReady, ...firstMachineSteps } = machineSteps;
const { configured, ...otherPodSteps } = podSteps;

/**
 * The whole start of a pod's sandbox. Steps that wait for the same thing start in the order of their rows: the guest is
 * configured before it mounts a disk, since its network waits for that.
 */
export const startSteps: Steps<StartMade, PodSite> = {
  ...admissionSteps,
  ...firstMachineSteps,
  configured,
  scratchReady,
  ...otherPodSteps,
};

/** Errors are only logged: the container meets and reports them again. */
async function plugImages(
  { imageDisks }: Pick<StartMade, 'imageDisks'>,
  { spec, context, phases }: PodSite,
  signal: AbortSignal,
): Promise<void> {
  for (const reference of spec.images) {
    try {
      await imageDisks.attach(await context.parts.images.hold(reference, 'Never', signal), phases, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.debug('image not plugged ahead', { image: reference, why: messageOf(error) });
    }
  }
}

async function makeOwnVolumes(
  { identity, directory, machine, guest }: Pick<StartMade, 'identity' | 'directory' | 'machine' | 'guest'>,
  { spec, context, order }: PodSite,
  signal: AbortSignal,
): Promise<VolumeDisks> {
  await using undo = new AsyncDisposableStack();
  const disks = createVolumeDisks({
    machine,
    guest,
    makeVolumeDisk: (...request) => context.parts.makeVolumeDisk(...request),
    machineDirectory: directory.machinePath,
    ownerUid: identity.record.uid,
  });
  undo.use(disks);
  await makeVolumes(spec, { guest, disks, size: order.size }, signal);
  undo.move();
  return disks;
}

export function attachableOf(
  {
    identity,
    directory,
    machine,
    guest,
    imageDisks,
    claims,
  }: Pick<StartMade, 'identity' | 'directory' | 'machine' | 'guest' | 'imageDisks' | 'claims'>,
  { spec, context, blockPaths }: PodSite,
  before?: ModulesBefore,
): Attachable {
  const { parts, surroundings, limits } = context;
  const { files, images } = parts;
  const sandboxId = identity.record.id;
  const log = surroundings.log.with({ sandbox: sandboxId });
  const owned = new AsyncDisposableStack();
  const kubelet = owned.use(createKubeletMode({ podUid: spec.uid, guest, trees: limits.pushedTrees, log }));
  const claimBlock: Parts['claimBlock'] = (...request) => parts.claimBlock(...request);
  const adoptBlockClaim: Parts['adoptBlockClaim'] = (record) => parts.adoptBlockClaim(record);
  const disks = createBlockDisks({ machine, guest, claims, claimBlock, adoptBlockClaim, limits, log });
  const block = { paths: blockPaths, disks, guest, fsGroup: spec.fsGroup, limits, log };
  const hasOwnUsers = spec.userNamespace !== undefined;
  const logDirectory = join(directory.path, 'servers');
  const share = createShareMode({ sandboxId, hasOwnUsers, machine, guest, files, logDirectory, log });
  const mounts = createContainerMounts({
    volumes: spec.volumes,
    hostModes: [kubelet, createBlockMode(block), share],
    imageMode: createImageMode({ images, imageDisks, guest, monotonicNs: surroundings.monotonicNs }),
    deviceMode: createDeviceMode(block),
    log,
  });
  owned.use(mounts);
  const modulesDisk = createModulesDisk(machine, guest, directory.machinePath, parts.modulesDisk, before);
  return { mounts, modulesDisk, owned };
}
