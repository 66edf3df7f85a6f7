import { access, chown, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { logTail, type JailedProcess } from '#host/jail/jailed-process.ts';
import { freezeProcess, isRunning, killProcess, type ProcessIdentity } from '#host/process/process-identity.ts';
import { Phases } from '#base/phases.ts';
import { within } from '#host/wait.ts';
import { setOomScore } from '#host/process/oom-score.ts';
import type { Machine, MachineDriver, MachineRecord, MachineSpec } from '../driver.ts';
import { assertMachineSpec, shapeOf } from '../machine-spec.ts';
import { qemuArguments } from './command-line.ts';
import { connectWhenListening } from './qmp/connect-socket.ts';
import { ConsoleLog, type MachineConsole } from './console/console-log.ts';
import { ConsoleRing } from './console/console-ring.ts';
import { kvmDevice, openableNode, tunDevice } from './jail/device-nodes.ts';
import { endOf } from './exit-reason.ts';
import { startFailure, type VmmEnd } from './failure.ts';
import { confine, findHostCgroup, type HostCgroup, sweepHostCgroups } from './cgroup/host-cgroup.ts';
import { assertReachable, inside, type JailSpec } from './jail/jail.ts';
import type { QemuDriverOptions } from './driver-options.ts';
import { MachineDirectory } from './machine-directory.ts';
import { restore } from './template/migration.ts';
import { QemuMachine } from './qemu-machine.ts';
import { QmpClient, type QmpEvent } from './qmp/qmp.ts';
import { spawnVmm } from './jail/spawn-vmm.ts';
import { allKernelArguments, Templates } from './template/templates.ts';

const driverName = 'qemu';
/** Time for QEMU to answer, in `ms`. 60 were measured; a loaded host needs more. */
const qmpDeadlineMs = 60_000;

/** Time from the end of a VMM to the report of its exit code, in `ms`. */
const exitReportMs = 2_000;

/** Creates the driver for machines of QEMU's `microvm` type, each in a jail. Needs root, which each VMM drops. */
export function createQemuDriver(options: QemuDriverOptions): MachineDriver {
  const templates = options.templates === undefined ? undefined : new Templates(options.templates, options);
  return {
    name: driverName,
    start: async (spec, signal) => {
      if (spec.from === 'boot') return await startQemuMachine(options, spec, { kind: 'boot' }, signal);
      const template = await templates?.find(shapeOf(spec));
      if (template === undefined) {
        throw new PodvmError('notFound', `Cannot restore machine ${spec.id}: there is no template of its shape`);
      }
      return await startQemuMachine(options, spec, { kind: 'restore', template }, signal);
    },
    hasTemplate: async (shape) => (await templates?.find(shape)) !== undefined,
    templateMadeAt: async (shape) => await templates?.madeAt(shape),
    makeTemplate: async (spec, exercise, signal) => {
      if (templates === undefined)
        throw new PodvmError('unsupported', 'Cannot make a template: templates are switched off', {
          fix: 'Set template to on or namespace in the configuration.',
        });
      await makeTemplate(options, templates, spec, exercise, signal);
    },
    adopt: (record, signal) => adopt(options, record, signal),
    sweep: sweepMachine,
  };
}

/** Removes the host's cgroups of an ended VMM. */
export async function sweepMachine(id: string, cgroupParent?: string): Promise<void> {
  await sweepHostCgroups(id, cgroupParent);
}

/** Start of a machine. `template`: the directory of the template that it is restored from. */
type Beginning = { readonly kind: 'boot' | 'freeze' } | { readonly kind: 'restore'; readonly template: string };

async function makeTemplate(
  options: QemuDriverOptions,
  templates: Templates,
  spec: MachineSpec,
  exercise: (machine: Machine) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const files = { memory: join(spec.directory, 'memory'), state: join(spec.directory, 'state') };
  await using undo = new AsyncDisposableStack();
  for (const path of Object.values(files)) {
    undo.defer(() => rm(path, { force: true }));
    await writeFile(path, '', { mode: 0o600, flag: 'wx' });
    await chown(path, spec.uid, spec.uid);
  }
  await truncate(files.memory, spec.memoryMiB * 1024 * 1024);
  try {
    const machine = undo.use(await startQemuMachine(options, spec, { kind: 'freeze' }, signal));
    await exercise(machine);
    await machine.freeze(signal);
    await templates.publish(shapeOf(spec), files);
  } catch (error) {
    throw await namingFullDisk(error, spec.directory);
  }
}

/** Free space below which a failed template is reported as a full disk: QEMU dies when a page cannot be allocated. */
const fullBytes = 1024 * 1024;

async function namingFullDisk(cause: unknown, directory: string): Promise<unknown> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= fullBytes) return cause;
  return new PodvmError('exhausted', `Cannot make a template: the file system of ${directory} is full`, {
    cause,
    fix: 'Free disk space: podvm image ls shows what images take.',
  });
}

/** Implements `MachineDriver.start`. Also used by the probe, which needs QEMU's events. */
export async function startQemuMachine(
  options: QemuDriverOptions,
  spec: Omit<MachineSpec, 'from'>,
  beginning: Beginning,
  signal: AbortSignal,
): Promise<QemuMachine> {
  const clock = new Phases(() => performance.now());
  assertMachineSpec(spec);
  await assertAssets(options);
  if (beginning.kind === 'restore') await assertReachable(join(beginning.template, 'state'));
  signal.throwIfAborted();
  await assertReachable(spec.directory);
  const directory = new MachineDirectory(spec.directory);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => directory.sweep());
  await directory.prepare(spec.uid);
  clock.mark('prepare');

  const vmm = await spawn(options, spec, beginning, directory, signal);
  let cgroup: HostCgroup | undefined;
  undo.defer(() => cgroup?.remove());
  undo.defer(() => killProcess(vmm.identity));
  cgroup = await confineOnce(options, spec, vmm);
  const protect = (score: number) => protectOnce(options, vmm.identity, score);
  if (spec.hostLimits?.oomScoreAdj !== undefined) await protect(spec.hostLimits.oomScoreAdj);
  clock.mark('jail');
  try {
    const events = new EventBuffer();
    const qmp = await openQmp(directory, vmm.identity, events, signal);
    undo.defer(() => qmp.close());
    await directory.close(spec.uid);
    clock.mark('qmp');
    const console = options.console === 'off' ? undefined : undo.use(await openConsole(options, directory, signal));
    if (beginning.kind === 'restore') {
      await restore(qmp, signal);
      clock.mark('restore');
    }
    await qmp.execute('cont', {}, signal);
    clock.mark('run');
    const record: MachineRecord = {
      driver: driverName,
      id: spec.id,
      directory: spec.directory,
      ...vmm.identity,
      uid: spec.uid,
      memoryMiB: spec.memoryMiB,
    };
    const { accelerator } = options;
    const subscribe = (handler: (event: QmpEvent) => void) => events.drainTo(handler);
    const machine = new QemuMachine({
      record,
      accelerator,
      phases: clock.done,
      directory,
      qmp,
      console,
      subscribe,
      ended: vmm.ended,
      cgroup,
      protect,
    });
    undo.move();
    return machine;
  } catch (error) {
    if (signal.aborted)
      throw new PodvmError('cancelled', `Cannot start machine ${spec.id}: cancelled`, { cause: error });
    throw startFailure(spec.id, await logTail(directory.vmmLog), error, await endOfVmm(vmm, error));
  }
}

/** Returns how the VMM ended, or, if it runs, what failed. The exit is reported shortly after the process is gone. */
async function endOfVmm({ identity, ended }: JailedProcess, failure: unknown): Promise<VmmEnd | undefined> {
  if (await isRunning(identity)) return { outweighsLog: true, reason: messageOf(failure) };
  const code = await within(ended, { ms: exitReportMs });
  return code === undefined ? undefined : endOf(code);
}

async function spawn(
  options: QemuDriverOptions,
  spec: Omit<MachineSpec, 'from'>,
  beginning: Beginning,
  directory: MachineDirectory,
  signal: AbortSignal,
): Promise<JailedProcess> {
  const jail = await jailOf(options, spec, beginning, signal);
  const command = [
    inside.qemu,
    ...qemuArguments({
      id: spec.id,
      accelerator: options.accelerator,
      memoryMiB: spec.memoryMiB,
      vcpus: spec.vcpus,
      paths: inside,
      start:
        beginning.kind === 'restore'
          ? { kind: 'restore' }
          : { kind: beginning.kind, kernelArguments: await allKernelArguments(options) },
      tap: spec.tap,
      hasConsole: options.console !== 'off',
      hasPlugin: options.assets.plugin !== undefined,
    }),
  ];
  signal.throwIfAborted();
  try {
    return await spawnVmm(jail, command, directory.vmmLog);
  } catch (error) {
    if (error instanceof PodvmError && error.kind !== 'internal') throw error;
    throw startFailure(spec.id, await logTail(directory.vmmLog), error);
  }
}

/** Returns the jail of a machine. Exported for the test that runs an attacker in it. */
export async function jailOf(
  options: QemuDriverOptions,
  spec: Omit<MachineSpec, 'from'>,
  beginning: Beginning,
  signal: AbortSignal,
): Promise<JailSpec> {
  return {
    uid: spec.uid,
    ...options.assets,
    template: beginning.kind === 'restore' ? beginning.template : undefined,
    directory: spec.directory,
    netns: spec.netns,
    devices: await devicesFor(options, spec, signal),
    maxFileBytes: spec.maxFileBytes,
  };
}

const [unconfined, unprotected] = [new WeakSet<QemuDriverOptions>(), new WeakSet<QemuDriverOptions>()];

/**
 * Sets the OOM score of a VMM. A failure is logged once and does not fail the start; the kernel then kills the VMM
 * earlier.
 */
async function protectOnce(options: QemuDriverOptions, identity: ProcessIdentity, score: number): Promise<void> {
  try {
    await setOomScore(identity, score);
  } catch (error) {
    if (!unprotected.has(options)) options.onUnprotected?.(messageOf(error));
    unprotected.add(options);
  }
}

/**
 * Confines a VMM. A failure is logged once and does not fail the start unless the cgroup is required: the guest's
 * limits still hold. After an error, the caller ends the VMM.
 */
async function confineOnce(
  options: QemuDriverOptions,
  { id, hostLimits }: Omit<MachineSpec, 'from'>,
  { identity }: JailedProcess,
): Promise<HostCgroup | undefined> {
  if (hostLimits === undefined || unconfined.has(options)) return undefined;
  try {
    return await confine(id, identity.pid, hostLimits, {
      maySwap: options.maySwap === true,
      diskBytesPerSecond: options.diskBytesPerSecond,
    });
  } catch (error) {
    if (!(await isRunning(identity))) return undefined; // it has ended: reported elsewhere
    if (error instanceof PodvmError) throw error; // the parent is missing
    if (options.requiresCgroup === true) {
      throw new PodvmError('failedPrecondition', `Cannot start machine ${id}: the host sets no limits for it`, {
        cause: error,
        fix: 'Give podvm the cgroup controllers memory, cpu and pids (with diskRate io, too: Delegate=yes), or run pods without: hostLimits: preferred in the configuration, or PODVM_HOST_LIMITS=preferred.',
      });
    }
    unconfined.add(options);
    options.onUnconfined?.(messageOf(error));
    return undefined;
  }
}

async function devicesFor(
  { accelerator }: QemuDriverOptions,
  { directory, uid, tap }: Omit<MachineSpec, 'from'>,
  signal: AbortSignal,
): Promise<(readonly [string, string])[]> {
  const wanted = [...(tap === undefined ? [] : [tunDevice]), ...(accelerator === 'kvm' ? [kvmDevice] : [])];
  return await Promise.all(
    wanted.map(async (device) => [await openableNode(device, directory, uid, signal), device.path] as const),
  );
}

async function adopt(
  options: QemuDriverOptions,
  record: MachineRecord,
  signal: AbortSignal,
): Promise<Machine | undefined> {
  if (record.driver !== driverName || !(await isRunning(record))) return undefined;
  await freezeProcess(record, false); // an earlier process may have been killed while it was paused
  const directory = new MachineDirectory(record.directory);
  await using undo = new AsyncDisposableStack();
  const events = new EventBuffer();
  let qmp: QmpClient;
  try {
    qmp = await openQmp(directory, record, events, signal);
  } catch (error) {
    if (!(await isRunning(record))) return undefined;
    throw error;
  }
  undo.defer(() => qmp.close());
  const console = directory.hasConsole() ? undo.use(await openConsole(options, directory, signal)) : undefined;
  const [kvm, cgroup] = await Promise.all([
    qmp.execute('query-kvm', {}, signal),
    findHostCgroup(record.id, record.pid),
  ]);
  const isKvm = typeof kvm === 'object' && kvm !== null && Reflect.get(kvm, 'enabled') === true;
  const machine = new QemuMachine({
    record,
    accelerator: isKvm ? 'kvm' : 'tcg',
    phases: [],
    directory,
    qmp,
    console,
    subscribe: (handler) => events.drainTo(handler),
    ended: undefined,
    cgroup,
    protect: (score) => setOomScore(record, score),
  });
  undo.move();
  return machine;
}

/** Stores events that arrive before the machine object exists. */
class EventBuffer {
  readonly #early: QmpEvent[] = [];
  #handler: ((event: QmpEvent) => void) | undefined;

  add(event: QmpEvent): void {
    if (this.#handler !== undefined) this.#handler(event);
    else if (this.#early.length < 64) this.#early.push(event);
  }

  drainTo(handler: (event: QmpEvent) => void): void {
    this.#handler = handler;
    for (const event of this.#early.splice(0)) handler(event);
  }
}

async function openQmp(
  directory: MachineDirectory,
  identity: ProcessIdentity,
  events: EventBuffer,
  signal: AbortSignal,
): Promise<QmpClient> {
  using deadline = openDeadline(qmpDeadlineMs, signal);
  const either = deadline.signal;
  try {
    const socket = await connectWhenListening(directory.socket('qmp'), () => isRunning(identity), either);
    const options = { onEvent: (event: QmpEvent) => events.add(event), tail: () => logTail(directory.vmmLog) };
    return await QmpClient.open(socket, options, either);
  } catch (error) {
    if (!either.aborted || signal.aborted) throw error;
    throw new PodvmError('timeout', `QEMU did not answer within ${qmpDeadlineMs / 1000} s`, { cause: error });
  }
}

async function openConsole(
  { console = 'file' }: QemuDriverOptions,
  directory: MachineDirectory,
  signal: AbortSignal,
): Promise<MachineConsole> {
  const socket = await connectWhenListening(directory.socket('console'), () => Promise.resolve(false), signal);
  return console === 'file' ? await ConsoleLog.open(directory.consoleLog, socket) : new ConsoleRing(socket);
}

async function assertAssets({ assets: { sysroot, kernel, initramfs } }: QemuDriverOptions): Promise<void> {
  const needed = { QEMU: join(sysroot, inside.qemu), 'the kernel': kernel, 'the initramfs': initramfs };
  for (const [what, path] of Object.entries(needed)) {
    await access(path).catch((cause: unknown) => {
      throw new PodvmError('failedPrecondition', `Cannot start a machine: ${what} is missing, expected at ${path}`, {
        cause,
        fix: 'Run `podvm setup`.',
      });
    });
    await assertReachable(path);
  }
}
