import type { Duplex } from 'node:stream';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { boundLog } from '#host/log/bound-log.ts';
import type { Phase } from '#base/phases.ts';
import { logTail, type ProcessEnd } from '#host/jail/jailed-process.ts';
import { threadsByInnerIds } from '#host/process/process-figures.ts';
import {
  freezeProcess,
  killProcess,
  signalIfHandled,
  waitUntilGone,
  type ProcessIdentity,
} from '#host/process/process-identity.ts';
import { within } from '#host/wait.ts';
import type {
  Accelerator,
  DiskError,
  DiskSpec,
  HostLimits,
  Machine,
  MachineExit,
  MachineRecord,
  MachineState,
} from '../driver.ts';
import { MachineLife } from '../machine-life.ts';
import { agentPortId } from './command-line.ts';
import { connectSocket } from './qmp/connect-socket.ts';
import { endOfFile, type MachineConsole } from './console/console-log.ts';
import { Deletions } from './devices/deletions.ts';
import { Disks } from './devices/disks.ts';
import { describeExit } from './exit-reason.ts';
import type { HostCgroup } from './cgroup/host-cgroup.ts';
import type { MachineDirectory } from './machine-directory.ts';
import { freeze } from './template/migration.ts';
import { Ports } from './devices/ports.ts';
import type { QmpClient, QmpEvent } from './qmp/qmp.ts';

/** Parts of a VMM whose guest runs. */
export interface RunningVmm {
  readonly record: MachineRecord;
  readonly accelerator: Accelerator;
  readonly phases: readonly Phase[];
  readonly directory: MachineDirectory;
  readonly qmp: QmpClient;
  /** Undefined if the console is switched off. */
  readonly console: MachineConsole | undefined;
  /** Subscribes to QMP events. Earlier events are delivered at once. */
  readonly subscribe: (handler: (event: QmpEvent) => void) => void;
  /** The exit code, when the VMM is our child; undefined when an earlier process started it. */
  readonly ended: Promise<ProcessEnd> | undefined;
  /** Undefined without a host cgroup. */
  readonly cgroup: HostCgroup | undefined;
  /** Sets the OOM score of the VMM (`HostLimits`). */
  readonly protect: (score: number) => Promise<void>;
}

/** QEMU's answer: one entry per processor. */
const cpusSchema = v.pipe(
  v.array(v.object({ 'thread-id': v.pipe(v.number(), v.integer(), v.minValue(1)) })),
  v.maxLength(1024),
);

/** SIGRTMAX, at which QEMU's plugin discards translations (`plugin/discard-translations.c`). */
const discardSignal = 64;

/** Time for the parent in the jail to report after the VMM is gone, in `ms`. */
const codeDeadlineMs = 2_000;
/** Time for the last console bytes to arrive, in `ms`. */
const consoleDeadlineMs = 1_000;

export class QemuMachine implements Machine {
  readonly id: string;
  readonly memoryMiB: number;
  readonly accelerator: Accelerator;
  readonly record: MachineRecord;
  readonly phases: readonly Phase[];
  readonly consolePath: string;
  readonly #vmm: RunningVmm;
  readonly #life: MachineLife;
  readonly #deletions = new Deletions();
  readonly #disks: Disks;
  readonly #ports: Ports;
  readonly #portOpened = Promise.withResolvers<void>();
  #channel: Duplex | undefined;
  #shutdownReason: string | undefined;
  #killed = false;

  constructor(vmm: RunningVmm) {
    this.id = vmm.record.id;
    this.memoryMiB = vmm.record.memoryMiB;
    this.accelerator = vmm.accelerator;
    this.record = vmm.record;
    this.phases = vmm.phases;
    this.consolePath = vmm.directory.consoleLog;
    this.#vmm = vmm;
    this.#life = new MachineLife(this.id);
    this.#disks = new Disks(vmm.qmp, this.#deletions, vmm.directory, vmm.record.uid);
    this.#ports = new Ports(vmm.qmp, this.#deletions, vmm.directory);
    this.#life.moveTo('running');
    vmm.subscribe((event) => this.#onEvent(event));
    this.#awaitEnd().catch((error: unknown) => {
      const reason = `how it ended is unknown: ${messageOf(error)}`;
      this.#life.end({ state: 'failed', reason, code: 'unknown', tail: [] });
    });
  }

  get state(): MachineState {
    return this.#life.state;
  }

  get exited(): Promise<MachineExit> {
    return this.#life.exited;
  }

  /**
   * Settles when the guest's first program opens the agent's port. Never settles if that happened before an adoption.
   */
  get portOpened(): Promise<void> {
    return this.#portOpened.promise;
  }

  async connect(signal: AbortSignal): Promise<Duplex> {
    this.#assertNotOver('connect to');
    this.#channel?.destroy();
    const channel = await connectSocket(this.#vmm.directory.socket('agent'), signal);
    this.#channel = channel;
    return channel;
  }

  /** Returns the end of the console; without output since the adoption, that of an earlier process's file. */
  async consoleTail(bytes: number): Promise<Buffer> {
    const tail = await this.#vmm.console?.tail(bytes);
    return tail === undefined || tail.length === 0 ? await endOfFile(this.consolePath, bytes) : tail;
  }

  async vcpuThreads(signal: AbortSignal): Promise<readonly number[]> {
    this.#life.assertRunning('measure');
    const answer = await this.#vmm.qmp.execute('query-cpus-fast', {}, signal);
    const parsed = v.safeParse(cpusSchema, answer);
    // QEMU knows its threads by their ids in the jail.
    if (parsed.success) {
      const inner = parsed.output.map((cpu) => cpu['thread-id']);
      return await threadsByInnerIds(this.record.pid, inner);
    }
    throw new PodvmError(
      'corrupt',
      `Cannot measure machine ${this.id}: QEMU does not say which threads its processors are`,
    );
  }

  async attachDisk(disk: DiskSpec, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('attach a disk to');
    await this.#disks.attach(disk, signal);
  }

  async detachDisk(serial: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('detach a disk from');
    await this.#disks.detach(serial, signal);
  }

  async emptyDisk(serial: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('empty a disk of');
    await this.#disks.empty(serial, signal);
  }

  async growDisk(serial: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('grow a disk of');
    await this.#disks.grow(serial, sizeBytes, signal);
  }

  onDiskError(listener: (error: DiskError) => void): void {
    this.#disks.onError(listener);
  }

  async attachPort(name: string, signal: AbortSignal): Promise<Duplex> {
    this.#life.assertRunning('attach a port to');
    return await this.#ports.attach(name, signal);
  }

  async detachPort(name: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('detach a port from');
    await this.#ports.detach(name, signal);
  }

  async limitHost(limits: HostLimits): Promise<void> {
    this.#life.assertRunning('limit');
    const { cgroup, protect } = this.#vmm;
    if (limits.oomScoreAdj !== undefined) await protect(limits.oomScoreAdj);
    if (cgroup === undefined) {
      throw new PodvmError('unsupported', `Cannot limit machine ${this.id}: it has no cgroup on the host`, {
        fix: 'Delegate the cgroup controllers memory, cpu and pids to podvm (Delegate=yes), then start the pod again.',
      });
    }
    await cgroup.limit(limits).catch((cause: NodeJS.ErrnoException) => {
      if (cause instanceof PodvmError) throw cause;
      const kind = cause.code === 'EBUSY' ? 'busy' : 'internal';
      throw new PodvmError(kind, `Cannot limit machine ${this.id} to ${limits.memoryBytes} bytes on the host`, {
        cause,
        ...(kind === 'busy' ? { fix: 'Free memory in the pod first, or choose a larger limit.' } : {}),
      });
    });
  }

  async setStartWeight(isSet: boolean): Promise<void> {
    this.#life.assertRunning('weigh');
    await this.#vmm.cgroup?.setStartWeight(isSet).catch((cause: unknown) => {
      throw new PodvmError('internal', `Cannot change the CPU weight of machine ${this.id}`, { cause });
    });
  }

  async confine(pid: number, memoryBytes: number): Promise<AsyncDisposable> {
    const nothing = { [Symbol.asyncDispose]: () => Promise.resolve() };
    try {
      return (await this.#vmm.cgroup?.add(pid, memoryBytes)) ?? nothing;
    } catch (cause) {
      throw new PodvmError('internal', `Cannot confine process ${pid} as machine ${this.id} is`, { cause });
    }
  }

  async learnDevices(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#disks.learn(signal), this.#ports.learn(signal)]);
  }

  /** Writes the machine's state and ends it. The memory file and `state` then form a template. */
  async freeze(signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('freeze');
    await freeze(this.#vmm.qmp, signal);
    await this.kill();
  }

  async discardTranslations(): Promise<void> {
    await signalIfHandled(this.record, discardSignal);
  }

  async freezeVmm(isFrozen: boolean): Promise<void> {
    await freezeProcess(this.record, isFrozen);
  }

  async stop(signal: AbortSignal): Promise<MachineExit> {
    if (this.#life.state === 'running') {
      this.#life.moveTo('stopping');
      // The result is not needed: the end is awaited below whether QEMU answers or not.
      await this.#vmm.qmp.execute('system_powerdown', {}, signal).catch(() => undefined);
    }
    const exit = await within(this.exited, { signal });
    if (exit !== undefined) return exit;
    return await this.kill();
  }

  async kill(): Promise<MachineExit> {
    if (!this.#life.isOver) {
      this.#killed = true;
      await killProcess(this.record);
    }
    return await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #assertNotOver(verb: string): void {
    if (!this.#life.isOver) return;
    throw new PodvmError('unavailable', `Cannot ${verb} machine ${this.id}: it is gone, got ${this.state}`);
  }

  #onEvent({ event, data }: QmpEvent): void {
    if (event === 'SHUTDOWN' && typeof data['reason'] === 'string') this.#shutdownReason = data['reason'];
    if (event === 'VSERPORT_CHANGE' && data['id'] === agentPortId) this.#portChanged(data['open'] === true);
    if (event === 'BLOCK_IO_ERROR') this.#disks.failed(data);
    if (event === 'DEVICE_DELETED' && typeof data['device'] === 'string') this.#deletions.happened(data['device']);
  }

  /**
   * Handles a change of the agent's port. QEMU keeps its end of the channel open when the guest has closed the other.
   */
  #portChanged(isOpen: boolean): void {
    if (isOpen) this.#portOpened.resolve();
    else this.#channel?.destroy(new PodvmError('unavailable', 'the guest has closed its end of the channel'));
  }

  /** Waits for the end of the process. A closed QMP channel alone does not end the machine. */
  async #awaitEnd(): Promise<void> {
    const { ended, directory, qmp, console, cgroup } = this.#vmm;
    using _ = boundLog(directory.vmmLog);
    await processEnd(this.record, ended, qmp);
    const code = (await within(ended ?? Promise.resolve('unknown' as const), { ms: codeDeadlineMs })) ?? 'unknown';
    this.#channel?.destroy();
    await within(console?.finished() ?? Promise.resolve(), { ms: consoleDeadlineMs });
    await console?.[Symbol.asyncDispose]();
    qmp.close();
    const tail = await logTail(directory.vmmLog);
    const outOfMemory = (await cgroup?.wasOutOfMemory()) ?? false;
    await cgroup?.remove().catch(() => undefined); // an empty cgroup is harmless; the next start removes it
    await directory.sweep().catch(() => undefined); // the directory's owner removes it and reports errors
    this.#life.end({
      ...describeExit({ code, shutdownReason: this.#shutdownReason, killed: this.#killed, outOfMemory }),
      code,
      tail,
    });
  }
}

/** Waits for our child's report or for the channel to close, and then until the process is gone. */
async function processEnd(
  identity: ProcessIdentity,
  ended: Promise<ProcessEnd> | undefined,
  qmp: QmpClient,
): Promise<void> {
  const never = new AbortController().signal;
  if (ended === undefined) {
    await waitUntilGone(identity, never);
    return;
  }
  await Promise.race([ended.catch(() => undefined), qmp.closed]);
  // bubblewrap may have been killed alone, or QEMU may hang after closing its channel: the machine still exists then.
  await waitUntilGone(identity, never);
}
