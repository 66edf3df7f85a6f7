import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { Attachment, AttachmentOwner, GuestNetwork } from '#network/network.ts';
import type { Machine, MachineShape } from '#vm/driver.ts';
import { consoleTail } from '../log/console-tail.ts';
import { scratchSerial } from '../container/create-container.ts';
import type { SandboxLimits } from '../limits.ts';
import type { UserIds } from '../names.ts';
import type { Parts, Surroundings } from '../parts.ts';
import type { PhaseClock } from '../phases.ts';
import { makeSandboxDirectory, writeRecord, type SandboxDirectory, type SandboxRecord } from '../recovery/record.ts';
import { hostLimitsOf, type MachineSize } from '../resources.ts';
import type { SandboxSpec } from '../sandbox.ts';
import type { Templates } from './templates.ts';
import { together } from '#host/together.ts';
import { untilAborted } from '#host/until-aborted.ts';

export interface PrepareContext {
  readonly root: string;
  readonly userIds: UserIds;
  readonly templates: Templates;
  readonly parts: Parts;
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
}

/** What must be known before a machine is made. */
export interface PrepareOrder {
  readonly size: MachineSize;
  readonly network: SandboxSpec['network'];
  readonly template: SandboxSpec['template'];
  /** Whose it will be. Undefined: nobody's yet. */
  readonly owner: AttachmentOwner | undefined;
}

/** A machine that runs, and whose agent answers. */
export interface OpenedMachine {
  readonly record: SandboxRecord;
  readonly directory: SandboxDirectory;
  readonly machine: Machine;
  readonly guest: Link;
  /** Machine, link, disks, attachment: gone when the sandbox has ended. */
  readonly running: AsyncDisposableStack;
}

/** What is done in a machine for its pod, each as soon as it can be. */
export interface MovingIn<Images> {
  /** When its agent answers. */
  greet(guest: Link, signal: AbortSignal): Promise<void>;
  /** When its agent answers. */
  plugImages(opened: OpenedMachine, signal: AbortSignal): Promise<Images>;
  /** When it was greeted, and its scratch disk is mounted. */
  makeVolumes(opened: OpenedMachine, signal: AbortSignal): Promise<void>;
  /** When it was greeted, and its network is connected on the host. */
  connect(guest: Link, network: GuestNetwork, signal: AbortSignal): Promise<void>;
}

/** A sandbox as far as it can be made without its pod, and what was done for that already. */
export interface PreparedSandbox<Images = undefined> extends OpenedMachine {
  readonly attachment: Attachment;
  readonly images: Images;
  /** What can be disposed of once more, should that have failed. */
  readonly retried: readonly AsyncDisposable[];
  /** User id and directory: gone when the sandbox is forgotten. */
  readonly kept: AsyncDisposableStack;
}

/** With a pod that moves in, its network is connected as well. On any error or abort, what was made is undone, in reverse order. */
export async function prepareSandbox<Images>(
  order: PrepareOrder,
  context: PrepareContext,
  phases: PhaseClock,
  movingIn: MovingIn<Images> | undefined,
  signal: AbortSignal,
): Promise<PreparedSandbox<Images | undefined>> {
  await using kept = new AsyncDisposableStack();
  await using running = new AsyncDisposableStack(); // undone first
  const { uid } = kept.use(context.userIds.take());
  const plan: Plan = { order, context, phases, record: recordOf(context, order.owner, uid) };
  await checkSpace(context);
  const directory = kept.use(await makeSandboxDirectory(context.root, plan.record));

  const [from, attachment, scratch] = await together(signal, [
    (both) => phases.time('template found', findTemplate(plan, both)),
    async (both) => running.use(await phases.time('network prepared', prepareNetwork(plan, both))),
    async (both) => running.use(await phases.time('scratch disk made', makeScratch(plan, directory, both))),
  ]);
  const connected = Promise.withResolvers<GuestNetwork>();
  const made = { directory, running, from, attachment, connected: connected.promise };
  const [{ opened, images }] = await together(signal, [
    (both) => openMachine(plan, made, movingIn, both),
    async (both) => {
      if (movingIn === undefined) return;
      connected.resolve(await phases.time('network connected', attachment.connect(both)));
    },
  ]);
  const retried = [opened.machine, scratch, attachment];
  return { ...opened, attachment, images, retried, running: running.move(), kept: kept.move() };
}

interface Made {
  readonly directory: SandboxDirectory;
  readonly running: AsyncDisposableStack;
  readonly from: 'restore' | 'boot';
  readonly attachment: Attachment;
  readonly connected: Promise<GuestNetwork>;
}

interface Opened<Images> {
  readonly opened: OpenedMachine;
  readonly images: Images | undefined;
}

/** Starts the machine and has its pod move in. */
async function openMachine<Images>(
  plan: Plan,
  { directory, running, from, attachment, connected }: Made,
  movingIn: MovingIn<Images> | undefined,
  signal: AbortSignal,
): Promise<Opened<Images>> {
  const { phases } = plan;
  const machine = running.use(
    await phases.time('machine started', startMachine(plan, directory, attachment, from, signal)),
  );
  phases.add('machine', machine.phases);
  const alive = whileAlive(machine, signal);
  try {
    const record = { ...plan.record, machine: machine.record };
    await writeRecord(directory.path, record);
    const [answered, greeted] = [Promise.withResolvers<Link>(), Promise.withResolvers<Link>()];
    const openedBy = (guest: Link): OpenedMachine => ({ record, directory, machine, guest, running });
    const [guest, images] = await together(alive, [
      async (both) => {
        const link = running.use(await phases.time('agent answered', connectLink(plan, machine, both)));
        answered.resolve(link);
        await movingIn?.greet(link, both);
        greeted.resolve(link);
        return link;
      },
      async (both) => movingIn?.plugImages(openedBy(await untilAborted(answered.promise, both)), both),
      async (both) => {
        await mountScratch(plan, machine, answered.promise, both);
        await movingIn?.makeVolumes(openedBy(await untilAborted(greeted.promise, both)), both);
      },
      async (both) => {
        const link = await untilAborted(greeted.promise, both);
        if (movingIn !== undefined) await movingIn.connect(link, await untilAborted(connected, both), both);
      },
    ]);
    return { opened: openedBy(guest), images };
  } catch (error) {
    throw await explain(error, machine, alive, signal);
  }
}

interface Plan {
  readonly order: PrepareOrder;
  readonly context: PrepareContext;
  readonly phases: PhaseClock;
  readonly record: SandboxRecord;
}

const scratchFile = 'scratch.ext4';
const scratchDisk = { serial: scratchSerial, file: scratchFile, readOnly: false };

function recordOf({ surroundings }: PrepareContext, owner: AttachmentOwner | undefined, uid: number): SandboxRecord {
  return {
    version: 1,
    id: `sb-${Buffer.from(surroundings.randomBytes(6)).toString('hex')}`,
    namespace: owner?.podNamespace ?? '',
    name: owner?.podName ?? '',
    podUid: owner?.podUid ?? '',
    uid,
    createdAt: new Date(surroundings.nowMs()).toISOString(),
  };
}

/** Sparse files hide a full disk until the guest writes: better to say so before a pod runs. */
async function checkSpace(context: PrepareContext): Promise<void> {
  const { bavail, bsize } = await statfs(context.root);
  const free = bavail * bsize;
  if (free >= context.limits.minFreeBytes) return;
  throw new PodvmError(
    'exhausted',
    `Cannot make a sandbox: ${context.root} has ${free} free bytes, and ${context.limits.minFreeBytes} are needed`,
    { fix: 'Free disk space: podvm image ls shows what images take.' },
  );
}

/** Templates are of one size, which suits every pod but the largest: limits are the cgroups' business. */
async function findTemplate({ order, context }: Plan, signal: AbortSignal): Promise<'restore' | 'boot'> {
  const { template, size, network } = order;
  if (template === 'off' || size.nominal === undefined) return 'boot';
  const shape = { ...size.nominal, hasNic: network !== 'none', ...tenantOf(order) };
  return await context.templates.ensure(shape, signal);
}

/** Nobody's order (`''`) has a tenant of its own too: whoever asks for its namespace's never gets the node's template. */
function tenantOf({ template, owner }: PrepareOrder): Pick<MachineShape, 'tenant'> {
  return template === 'namespace' ? { tenant: owner?.podNamespace ?? '' } : {};
}

function prepareNetwork({ order, context, record }: Plan, signal: AbortSignal): Promise<Attachment> {
  const owner = order.owner ?? { podName: '', podNamespace: '', podUid: '', hostPorts: [] };
  const request = { ...owner, sandboxId: record.id, mode: order.network, tapOwnerUid: record.uid };
  return context.parts.network.prepare(request, signal);
}

function makeScratch({ order, context, record }: Plan, directory: SandboxDirectory, signal: AbortSignal) {
  const path = join(directory.machinePath, scratchFile);
  const { scratchBytes } = order.size;
  return context.parts.makeScratchDisk({ path, sizeBytes: scratchBytes, ownerUid: record.uid }, signal);
}

async function startMachine(
  { order, context, record }: Plan,
  directory: SandboxDirectory,
  { netns, tap }: Attachment,
  from: 'restore' | 'boot',
  signal: AbortSignal,
): Promise<Machine> {
  const { memoryMiB, vcpus, nominal, resources, scratchBytes } = order.size;
  const limitsFor = (machineMiB: number) => hostLimitsOf(resources, machineMiB, context.limits.size);
  const place = { id: record.id, directory: directory.machinePath, uid: record.uid, netns, ...(tap && { tap }) };
  const rest = { ...place, maxFileBytes: scratchBytes };
  const { driver } = context.parts;
  if (from === 'restore' && nominal !== undefined) {
    try {
      const hostLimits = limitsFor(nominal.memoryMiB);
      return await driver.start({ ...rest, ...nominal, ...tenantOf(order), hostLimits, from }, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.warn('cannot restore, booting instead', { sandbox: record.id, why: messageOf(error) });
    }
  }
  const hostLimits = limitsFor(memoryMiB);
  return await driver.start({ ...rest, memoryMiB, vcpus, hostLimits, from: 'boot' }, signal);
}

async function mountScratch(
  { phases }: Plan,
  machine: Machine,
  answered: Promise<Link>,
  signal: AbortSignal,
): Promise<void> {
  await phases.time('scratch disk plugged', machine.attachDisk(scratchDisk, signal));
  const guest = await untilAborted(answered, signal);
  const scratchSpec = { serial: scratchSerial, fileSystem: 'ext4', readOnly: false, hasQuotas: true } as const;
  phases.add('scratch disk', (await guest.call('attachDisk', scratchSpec, signal)).phases);
}

/** Aborts with the caller, and when the machine dies: nobody waits for an agent that cannot answer any more. */
export function whileAlive(machine: Machine, signal: AbortSignal): AbortSignal {
  const dead = new AbortController();
  void machine.exited.then((exit) => dead.abort(new PodvmError('unavailable', exit.reason, { tail: exit.tail })));
  return AbortSignal.any([signal, dead.signal]);
}

function connectLink({ context }: Plan, machine: Machine, signal: AbortSignal): Promise<Link> {
  const { bootTimeoutMs, callTimeoutMs } = context.limits;
  const open = (opening: AbortSignal) => machine.connect(opening);
  return context.parts.connectLink({ open, handshakeTimeoutMs: bootTimeoutMs, callTimeoutMs }, signal);
}

/** A start that failed because its machine died says so, with what the guest said last. */
export async function explain(
  error: unknown,
  machine: Machine,
  alive: AbortSignal,
  signal: AbortSignal,
): Promise<unknown> {
  const isDead = alive.aborted && !signal.aborted;
  const isSilent = error instanceof PodvmError && error.kind === 'timeout';
  if (!isDead && !isSilent) return error;
  const tail = await consoleTail(machine.consolePath);
  const exit = isDead ? await machine.exited : undefined;
  return new PodvmError(
    isDead ? 'unavailable' : 'timeout',
    `Cannot start the sandbox: ${exit?.reason ?? 'the agent does not answer'}` +
      (tail.length === 0 ? '' : `; the guest's last lines: ${tail.join(' | ')}`),
    { cause: error, tail: [...(exit?.tail ?? []), ...tail] },
  );
}
