import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readPulse } from '#host/process/process-pulse.ts';
import type { Link, LinkOptions } from '#link/link.ts';
import type { Attachment, AttachmentOwner } from '#network/network.ts';
import type { ScratchDisk } from '#storage/volumes.ts';
import type { Machine, MachineShape } from '#vm/driver.ts';
import { scratchSerial } from '../volume/volume-disks.ts';
import type { SandboxLimits } from '../limits.ts';
import { lastWords } from '../log/console-tail.ts';
import type { UserIds } from '../names.ts';
import type { ImageDemand } from './image-demand.ts';
import type { LeftOvers } from '../state/left-overs.ts';
import type { Parts, Surroundings } from '../parts.ts';
import type { PhaseClock } from '../state/phases.ts';
import {
  makeSandboxDirectory,
  recordVersionOf,
  writeRecord,
  type SandboxDirectory,
  type SandboxRecord,
} from '../recovery/record.ts';
import { hostLimitsOf, type MachineSize } from '../resources.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { createImageDisks, type ImageDisks } from '../volume/image-disks.ts';
import { stepOf, type Steps } from './run-steps.ts';
import type { Templates } from './templates.ts';

export interface MachineContext {
  readonly root: string;
  readonly userIds: UserIds;
  readonly templates: Templates;
  readonly imageDemand: ImageDemand;
  /** What starts that failed, and machines that waited in vain, have left. */
  readonly leftOvers: LeftOvers;
  /** Removals of sandboxes that failed; these sandboxes are still listed. */
  readonly removals: LeftOvers;
  readonly parts: Parts;
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
}

/** Properties of a machine that is to be made. */
export interface MachineOrder {
  readonly size: MachineSize;
  readonly network: SandboxSpec['network'];
  readonly template: SandboxSpec['template'];
  /** The pod that it is made for; undefined for a spare. */
  readonly owner: AttachmentOwner | undefined;
  /** `SandboxSpec.cgroupParent` */
  readonly cgroupParent?: string;
}

/** Input of the steps of a machine. */
export interface MachineSite {
  readonly context: MachineContext;
  readonly order: MachineOrder;
  readonly phases: PhaseClock;
}

/** A running machine whose agent answers, with everything that it depends on. */
export interface MachineMade {
  readonly identity: Identity;
  readonly directory: SandboxDirectory;
  readonly template: 'restore' | 'boot';
  readonly attachment: Attachment;
  readonly scratch: ScratchDisk;
  readonly machine: Machine;
  /** The record on disk, including the machine. */
  readonly record: SandboxRecord;
  readonly guest: Link;
  readonly scratchPlugged: void;
  readonly scratchReady: void;
  readonly imageDisks: ImageDisks;
}

export interface Identity {
  /** The record without a machine. */
  readonly record: SandboxRecord;
  readonly user: Disposable;
}

const step = stepOf<MachineMade, MachineSite>();
const dispose = (owned: AsyncDisposable) => owned[Symbol.asyncDispose]();

/** The steps to a machine whose agent answers, for a pod or a spare. */
export const machineSteps: Steps<MachineMade, MachineSite> = {
  identity: step({
    name: 'identity taken',
    what: 'an id, and a user id of the host that no other VMM has',
    needs: [],
    run: (_made, { context, order }) => identityOf(context, order),
    undo: ({ user }) => user[Symbol.dispose](),
    until: 'removed',
  }),
  directory: step({
    name: 'directory made',
    what: "the sandbox's directory with its record `sandbox.json`, unless the disk is nearly full",
    needs: ['identity'],
    run: async ({ identity }, { context }) => {
      await checkSpace(context);
      return await makeSandboxDirectory(context.root, identity.record);
    },
    undo: dispose,
    until: 'removed',
  }),
  template: step({
    name: 'template found',
    what: 'the template to restore from; made if the node has none of that shape (`src/sandbox/start/templates.ts`)',
    needs: ['directory'],
    run: async (_made, { context, order }, signal) => await findTemplate(order, context, signal),
  }),
  attachment: step({
    name: 'network prepared',
    what: 'a network namespace with a tap in it (`src/network/host-attachment.ts`)',
    needs: ['identity', 'directory'],
    run: ({ identity: { record } }, { context, order }, signal) => {
      const owner = order.owner ?? { podName: '', podNamespace: '', podUid: '', hostPorts: [] };
      const request = { ...owner, sandboxId: record.id, mode: order.network, tapOwnerUid: record.uid };
      return context.parts.network.prepare(request, signal);
    },
    undo: dispose,
  }),
  scratch: step({
    name: 'scratch disk made',
    what: 'a sparse ext4 for what containers write (`src/storage/scratch-disk.ts`)',
    needs: ['identity', 'directory'],
    run: ({ identity, directory }, { context, order }, signal) => {
      const path = join(directory.machinePath, scratchDisk.file);
      const request = { path, sizeBytes: order.size.scratchBytes, ownerUid: identity.record.uid };
      return context.parts.makeScratchDisk(request, signal);
    },
    undo: dispose,
  }),
  machine: step({
    name: 'machine started',
    what: 'QEMU in its jail, restored or booted, until the guest runs (`src/vm/qemu/qemu-driver.ts`)',
    needs: ['identity', 'directory', 'template', 'attachment', 'scratch'],
    run: async (made, site, signal) => {
      const machine = await startMachine(made, site, signal);
      site.phases.add('machine', machine.phases);
      return machine;
    },
    undo: dispose,
    lost: async (machine) => {
      const { reason, tail } = await machine.exited;
      return new PodvmError('unavailable', reason, { tail });
    },
    explain,
  }),
  record: step({
    name: 'machine recorded',
    what: 'the VMM is in the record, so that a later podvm finds it',
    needs: ['identity', 'directory', 'machine'],
    run: async ({ identity, directory, machine }) => {
      const record: SandboxRecord = { ...identity.record, machine: machine.record };
      await writeRecord(directory.path, record);
      return record;
    },
  }),
  guest: step({
    name: 'agent answered',
    what: 'the link to the agent (`src/link/connect-link.ts`)',
    needs: ['machine', 'record'],
    run: ({ machine }, { context }, signal) => linkTo(machine, context, {}, signal),
    undo: dispose,
  }),
  scratchPlugged: step({
    name: 'scratch disk plugged',
    what: 'the machine has the scratch disk',
    needs: ['machine', 'record', 'scratch'],
    run: ({ machine }, _site, signal) => machine.attachDisk(scratchDisk, signal),
  }),
  scratchReady: step({
    name: 'scratch disk ready',
    what: 'the guest has mounted it (`src/agent/volume/disks.ts`)',
    needs: ['guest', 'scratchPlugged'],
    run: async ({ guest }, { phases }, signal) => {
      const scratch = { serial: scratchSerial, fileSystem: 'ext4', readOnly: false, hasQuotas: true } as const;
      phases.add('scratch disk', (await guest.call('attachDisk', scratch, signal)).phases);
    },
  }),
  imageDisks: step({
    name: 'image disks opened',
    what: 'a place for the disks of images (`src/sandbox/volume/image-disks.ts`)',
    needs: ['directory', 'machine', 'guest'],
    run: ({ directory: { machinePath: machineDirectory }, machine, guest }, { context }) =>
      createImageDisks({ machine, guest, machineDirectory, onFirst: (id) => context.imageDemand.started(id) }),
    undo: dispose,
  }),
};

/** `isUp`: the machine's agent has answered an earlier process. */
export function linkTo(
  machine: Machine,
  { limits: { bootTimeoutMs, callTimeoutMs }, parts }: MachineContext,
  { isUp = false }: Pick<LinkOptions, 'isUp'>,
  signal: AbortSignal,
): Promise<Link> {
  const open = (opening: AbortSignal) => machine.connect(opening);
  const pulse = () => readPulse(machine.record);
  return parts.connectLink({ open, handshakeTimeoutMs: bootTimeoutMs, callTimeoutMs, isUp, pulse }, signal);
}

export const scratchDisk = { serial: scratchSerial, file: 'scratch.ext4', readOnly: false };

function identityOf({ userIds, surroundings, parts }: MachineContext, { owner, cgroupParent }: MachineOrder): Identity {
  const user = userIds.take();
  const record = {
    version: recordVersionOf({}),
    id: `sb-${Buffer.from(surroundings.randomBytes(6)).toString('hex')}`,
    namespace: owner?.podNamespace ?? '',
    name: owner?.podName ?? '',
    podUid: owner?.podUid ?? '',
    uid: user.uid,
    createdAt: new Date(surroundings.nowMs()).toISOString(),
    parts: parts.versions,
    ...(cgroupParent === undefined ? {} : { cgroupParent }),
  } as const;
  return { record, user };
}

/** Sparse files hide a full disk until the guest writes, so space is checked before a pod runs. */
async function checkSpace({ root, limits }: MachineContext): Promise<void> {
  const { bavail, bsize } = await statfs(root);
  const free = bavail * bsize;
  if (free >= limits.minFreeBytes) return;
  throw new PodvmError(
    'exhausted',
    `Cannot make a sandbox: ${root} needs ${limits.minFreeBytes} free bytes, got ${free}`,
    { fix: 'Free disk space: podvm image ls shows what images take.' },
  );
}

/** Templates have one size, which fits every pod but the largest: limits are enforced by cgroups. */
async function findTemplate(
  order: MachineOrder,
  { templates }: MachineContext,
  signal: AbortSignal,
): Promise<'restore' | 'boot'> {
  const { template, size, network } = order;
  if (template === 'off' || size.nominal === undefined) return 'boot';
  return await templates.ensure({ ...size.nominal, hasNic: network !== 'none', ...tenantOf(order) }, signal);
}

/** An order without a namespace (`''`) also has its own tenant: a pod that asks for its namespace's never gets the node's. */
function tenantOf({ template, owner }: MachineOrder): Pick<MachineShape, 'tenant'> {
  return template === 'namespace' ? { tenant: owner?.podNamespace ?? '' } : {};
}

async function startMachine(
  {
    identity: { record },
    directory,
    template,
    attachment: { netns, tap },
  }: Pick<MachineMade, 'identity' | 'directory' | 'template' | 'attachment'>,
  { order, context }: MachineSite,
  signal: AbortSignal,
): Promise<Machine> {
  const { memoryMiB, vcpus, nominal, resources, scratchBytes } = order.size;
  const limitsFor = (machineMiB: number) => ({
    ...hostLimitsOf(resources, machineMiB, context.limits.size),
    ...(order.cgroupParent === undefined ? {} : { cgroupParent: order.cgroupParent }),
  });
  const place = { id: record.id, directory: directory.machinePath, uid: record.uid, netns, ...(tap && { tap }) };
  const rest = { ...place, maxFileBytes: scratchBytes };
  const { driver } = context.parts;
  if (template === 'restore' && nominal !== undefined) {
    try {
      const hostLimits = limitsFor(nominal.memoryMiB);
      return await driver.start({ ...rest, ...nominal, ...tenantOf(order), hostLimits, from: 'restore' }, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.warn('cannot restore, booting instead', { sandbox: record.id, why: messageOf(error) });
    }
  }
  const hostLimits = limitsFor(memoryMiB);
  return await driver.start({ ...rest, memoryMiB, vcpus, hostLimits, from: 'boot' }, signal);
}

/** Explains a start that failed because its machine died, with the guest's last lines. */
async function explain(error: unknown, machine: Machine, isDead: boolean): Promise<unknown> {
  const isSilent = error instanceof PodvmError && error.kind === 'timeout';
  if (!isDead && !isSilent) return error;
  const tail = await lastWords(machine);
  const exit = isDead ? await machine.exited : undefined;
  return new PodvmError(
    isDead ? 'unavailable' : 'timeout',
    `Cannot start the sandbox: ${exit?.reason ?? 'the agent does not answer'}` +
      (tail.length === 0 ? '' : `; the guest's last lines: ${tail.map((line) => printable(line)).join(' | ')}`),
    {
      cause: error,
      tail: [...(exit?.tail ?? []), ...tail],
      fix: isDead
        ? 'See the console of the machine, and `podvm doctor`; the host may lack memory.'
        : 'Start fewer pods at once, or give the host more processors.',
    },
  );
}
