import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { Attachment, GuestNetwork } from '#network/network.ts';
import type { Machine } from '#vm/driver.ts';
import { consoleTail } from './console-tail.ts';
import { scratchSerial } from './create-container.ts';
import { etcHostsOf, plainAddresses, resolvConfOf } from './etc-files.ts';
import { createImageDisks } from './image-disks.ts';
import type { SandboxLimits } from './limits.ts';
import { LiveSandbox } from './live-sandbox.ts';
import type { Names, UserIds } from './names.ts';
import type { Templates } from './templates.ts';
import type { Parts, Surroundings } from './parts.ts';
import { createPhases, type PhaseClock } from './phases.ts';
import { pushVolume } from './push-volume.ts';
import { makeSandboxDirectory, writeRecord, type SandboxDirectory, type SandboxRecord } from './record.ts';
import { cgroupResourcesOf, machineSizeOf, type MachineSize } from './resources.ts';
import type { SandboxSpec } from './sandbox.ts';
import { together } from './together.ts';

export interface StartContext {
  readonly root: string;
  readonly names: Names;
  readonly userIds: UserIds;
  readonly templates: Templates;
  readonly parts: Parts;
  readonly limits: SandboxLimits;
  readonly surroundings: Surroundings;
}

/** Everything a start knows before it makes anything. */
interface Plan {
  readonly spec: SandboxSpec;
  readonly context: StartContext;
  readonly size: MachineSize;
  readonly record: SandboxRecord;
  readonly phases: PhaseClock;
}

/** From nothing to a sandbox that is `ready`. On any error or abort, what was made is undone, in reverse order. */
export async function startSandbox(
  spec: SandboxSpec,
  context: StartContext,
  signal: AbortSignal,
): Promise<LiveSandbox> {
  await using kept = new AsyncDisposableStack(); // for as long as the sandbox is known
  await using running = new AsyncDisposableStack(); // for as long as it runs; undone first
  kept.use(context.names.reserve(spec.namespace, spec.name));
  const { uid } = kept.use(context.userIds.take());
  const plan = planSandbox(spec, context, uid);
  await checkSpace(plan);
  const directory = kept.use(await makeSandboxDirectory(context.root, plan.record));

  const [from, attachment, scratch] = await together(signal, [
    (both) => plan.phases.time('template found', findTemplate(plan, both)),
    async (both) => running.use(await plan.phases.time('network prepared', prepareNetwork(plan, both))),
    async (both) => running.use(await plan.phases.time('scratch disk made', makeScratch(plan, directory, both))),
  ]);
  const machine = running.use(
    await plan.phases.time('machine started', startMachine(plan, directory, attachment, from, signal)),
  );
  plan.phases.add('machine', machine.phases);
  const alive = whileAlive(machine, signal);
  try {
    await writeRecord(directory.path, { ...plan.record, machine: machine.record });
    const [guest, network] = await together(alive, [
      async (both) => running.use(await plan.phases.time('agent answered', connectLink(plan, machine, both))),
      (both) => plan.phases.time('network connected', attachment.connect(both)),
      (both) => plan.phases.time('scratch disk plugged', machine.attachDisk(scratchDisk, both)),
    ]);
    await plan.phases.time('guest configured', configure(plan, guest, network, alive));
    await plan.phases.time('volumes made', makeVolumes(plan, guest, alive));
    alive.throwIfAborted(); // from here the sandbox itself hears of the machine's end
    const imageDisks = running.use(createImageDisks(machine, guest, directory.machinePath));
    const retried = [machine, scratch, attachment];
    return publish({ plan, directory, machine, guest, imageDisks, network, retried }, running.move(), kept.move());
  } catch (error) {
    throw await explain(error, machine, alive, signal);
  }
}

const scratchFile = 'scratch.ext4';
const scratchDisk = { serial: scratchSerial, file: scratchFile, readOnly: false };

function planSandbox(spec: SandboxSpec, context: StartContext, uid: number): Plan {
  const { limits, surroundings } = context;
  const size = machineSizeOf(`pod ${spec.namespace}/${spec.name}`, spec.resources, limits.size);
  const record: SandboxRecord = {
    version: 1,
    id: `sb-${Buffer.from(surroundings.randomBytes(6)).toString('hex')}`,
    namespace: spec.namespace,
    name: spec.name,
    podUid: spec.uid,
    uid,
    createdAt: new Date(surroundings.nowMs()).toISOString(),
  };
  return { spec, context, size, record, phases: createPhases(surroundings.monotonicNs) };
}

/** Sparse files hide a full disk until the guest writes: better to say so before a pod runs. */
async function checkSpace({ context }: Plan): Promise<void> {
  const { bavail, bsize } = await statfs(context.root);
  const free = bavail * bsize;
  if (free >= context.limits.minFreeBytes) return;
  throw new PodvmError(
    'exhausted',
    `Cannot make a sandbox: ${context.root} has ${free} free bytes, and ${context.limits.minFreeBytes} are needed`,
    { fix: 'Free disk space: podvm image ls shows what images take.' },
  );
}

function prepareNetwork({ spec, context, record }: Plan, signal: AbortSignal): Promise<Attachment> {
  const request = {
    sandboxId: record.id,
    podName: spec.name,
    podNamespace: spec.namespace,
    podUid: spec.uid,
    mode: spec.network,
    hostPorts: spec.hostPorts,
    tapOwnerUid: record.uid,
  };
  return context.parts.network.prepare(request, signal);
}

function makeScratch({ context, size, record }: Plan, directory: SandboxDirectory, signal: AbortSignal) {
  const path = join(directory.machinePath, scratchFile);
  return context.parts.makeScratchDisk({ path, sizeBytes: size.scratchBytes, ownerUid: record.uid }, signal);
}

/** Templates are of one size, which suits every pod but the largest: limits are the cgroups' business. */
async function findTemplate({ spec, context, size }: Plan, signal: AbortSignal): Promise<'restore' | 'boot'> {
  if (spec.template === 'off' || size.nominal === undefined) return 'boot';
  return await context.templates.ensure({ ...size.nominal, hasNic: spec.network !== 'none' }, signal);
}

async function startMachine(
  { context, size, record }: Plan,
  directory: SandboxDirectory,
  { netns, tap }: Attachment,
  from: 'restore' | 'boot',
  signal: AbortSignal,
): Promise<Machine> {
  const { memoryMiB, vcpus, nominal } = size;
  const rest = { id: record.id, directory: directory.machinePath, uid: record.uid, netns, ...(tap && { tap }) };
  const { driver } = context.parts;
  if (from === 'restore' && nominal !== undefined) {
    try {
      return await driver.start({ ...rest, ...nominal, from }, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.surroundings.log.warn('cannot restore, booting instead', { sandbox: record.id, why: messageOf(error) });
    }
  }
  return await driver.start({ ...rest, memoryMiB, vcpus, from: 'boot' }, signal);
}

/** Aborts with the caller, and when the machine dies: nobody waits for an agent that cannot answer any more. */
function whileAlive(machine: Machine, signal: AbortSignal): AbortSignal {
  const dead = new AbortController();
  void machine.exited.then((exit) => dead.abort(new PodvmError('unavailable', exit.reason, { tail: exit.tail })));
  return AbortSignal.any([signal, dead.signal]);
}

function connectLink({ context }: Plan, machine: Machine, signal: AbortSignal): Promise<Link> {
  const { bootTimeoutMs, callTimeoutMs } = context.limits;
  const open = (opening: AbortSignal) => machine.connect(opening);
  return context.parts.connectLink({ open, handshakeTimeoutMs: bootTimeoutMs, callTimeoutMs }, signal);
}

async function configure(plan: Plan, guest: Link, network: GuestNetwork, signal: AbortSignal): Promise<void> {
  const { spec, context } = plan;
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
      resources: cgroupResourcesOf(spec.resources),
    },
    signal,
  );
  const attached = await guest.call(
    'attachDisk',
    { serial: scratchSerial, fileSystem: 'ext4', readOnly: false },
    signal,
  );
  plan.phases.add('guest', [...configured.phases, ...attached.phases]);
}

async function makeVolumes({ spec }: Plan, guest: Link, signal: AbortSignal): Promise<void> {
  for (const volume of spec.volumes) {
    const { name, kind } = volume;
    const limit = volume.kind !== 'push' && volume.sizeLimitBytes !== undefined;
    await guest.call(
      'createVolume',
      {
        name,
        kind,
        ...(kind === 'scratch' ? { disk: scratchSerial } : {}),
        ...(limit ? { sizeLimitBytes: volume.sizeLimitBytes } : {}),
        ...(spec.fsGroup === undefined ? {} : { fsGroup: spec.fsGroup }),
      },
      signal,
    );
    if (volume.kind === 'push') await pushVolume(guest, name, volume.files, signal);
  }
}

interface Started {
  readonly plan: Plan;
  readonly directory: SandboxDirectory;
  readonly machine: Machine;
  readonly guest: Link;
  readonly imageDisks: ReturnType<typeof createImageDisks>;
  readonly network: GuestNetwork;
  readonly retried: readonly AsyncDisposable[];
}

function publish(started: Started, running: AsyncDisposableStack, kept: AsyncDisposableStack): LiveSandbox {
  const { plan, directory, machine, guest, imageDisks, network, retried } = started;
  const { spec, context, record, phases } = plan;
  const log = context.surroundings.log.with({ sandbox: record.id, pod: `${spec.namespace}/${spec.name}` });
  log.info('sandbox started', phases.fields());
  return new LiveSandbox({
    id: record.id,
    spec,
    directory: directory.path,
    machine,
    guest,
    imageDisks,
    addresses: plainAddresses(network.interfaces.flatMap((each) => each.addresses)),
    phases: phases.timeline(),
    createdAt: new Date(record.createdAt),
    parts: context.parts,
    limits: context.limits,
    surroundings: { ...context.surroundings, log },
    running,
    retried,
    kept,
  });
}

/** A start that failed because its machine died says so, with what the guest said last. */
async function explain(error: unknown, machine: Machine, alive: AbortSignal, signal: AbortSignal): Promise<unknown> {
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
