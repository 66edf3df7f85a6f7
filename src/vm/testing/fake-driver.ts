import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { duplexPair, type Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import {
  maxPorts,
  type DiskSpec,
  type Machine,
  type MachineDriver,
  type MachineExit,
  type MachineRecord,
  type MachineSpec,
  type MachineState,
} from '../driver.ts';
import { MachineLife } from '../machine-life.ts';
import { assertMachineSpec, shapeOf } from '../machine-spec.ts';

/**
 * A driver without a hypervisor, for tests of the layers above. Machines exist in memory, and the test plays the guest
 * at the other end of the channel. It passes the same conformance suite as the real driver.
 */
export interface FakeDriver extends MachineDriver {
  start(spec: MachineSpec, signal: AbortSignal): Promise<FakeMachine>;
  /** The machines that the driver has made, in order; of those that have ended only the last hundreds. */
  readonly machines: readonly FakeMachine[];
  /** Makes the next start fail with this error. */
  failNextStart(error: PodvmError): void;
}

export interface FakeOptions {
  /** Called with the guest's end of each channel that is opened. */
  readonly onConnect?: (agentEnd: Duplex, machine: FakeMachine) => void;
  /** Makes the guest ignore the power button, so that it must be killed; default false. */
  readonly ignoresPowerButton?: boolean;
  /** Whether set-up has made a template of every shape; default: there is none yet. */
  readonly hasEveryTemplate?: boolean;
}

/** Limit, so that tests with thousands of machines do not fill the memory. */
const maxGone = 200;

export function createFakeDriver(options: FakeOptions = {}): FakeDriver {
  const machines: FakeMachine[] = [];
  let made = 0;
  const templates = new Set<string>();
  let nextFailure: PodvmError | undefined;
  const driver: FakeDriver = {
    name: 'fake',
    machines,
    failNextStart(error) {
      nextFailure = error;
    },
    async start(spec, signal) {
      assertMachineSpec(spec);
      if (spec.from === 'restore' && !(await this.hasTemplate(shapeOf(spec)))) {
        throw new PodvmError('notFound', `Cannot restore machine ${spec.id}: there is no template of its shape`);
      }
      await access(spec.directory);
      await turn(); // start is asynchronous so that a test can abort it
      if (signal.aborted) throw new PodvmError('cancelled', `Cannot start machine ${spec.id}: cancelled`);
      const failure = nextFailure;
      nextFailure = undefined;
      if (failure !== undefined) throw failure;
      made += 1;
      const machine = new FakeMachine(spec, options, made);
      machines.push(machine);
      if (made % maxGone === 0)
        machines.splice(0, maxGone, ...machines.slice(0, maxGone).filter(({ isGone }) => !isGone));
      return machine;
    },
    hasTemplate: async (shape) => options.hasEveryTemplate === true || templates.has(JSON.stringify(shape)),
    templateMadeAt: async (shape) => ((await driver.hasTemplate(shape)) ? new Date(0) : undefined),
    async makeTemplate(spec, exercise, signal) {
      const machine = await this.start({ ...spec, from: 'boot' }, signal);
      try {
        await exercise(machine);
      } finally {
        await machine.kill();
      }
      templates.add(JSON.stringify(shapeOf(spec)));
    },
    sweep: async () => undefined,
    adopt(record) {
      const isMeant = ({ record: { driver, id, startTicks } }: FakeMachine) =>
        driver === record.driver && id === record.id && startTicks === record.startTicks;
      const found = machines.find(isMeant);
      return Promise.resolve(found?.isGone === false ? found : undefined);
    },
  };
  return driver;
}

export class FakeMachine implements Machine {
  readonly id: string;
  readonly accelerator = 'tcg';
  readonly record: MachineRecord;
  readonly phases = [{ name: 'fake', ms: 0 }];
  readonly memoryMiB: number;
  readonly consolePath: string;
  readonly spec: MachineSpec;
  /** Attached disks, by serial. */
  readonly disks = new Map<string, DiskSpec>();
  /** Latest size given to `growDisk`, in bytes, by serial. */
  readonly sizes = new Map<string, number>();
  /** The guest's end of each attached port, by name. */
  readonly ports = new Map<string, Duplex>();
  readonly #life: MachineLife;
  readonly #options: FakeOptions;
  #hostEnd: Duplex | undefined;
  #agentEnd: Duplex | undefined;

  constructor(spec: MachineSpec, options: FakeOptions, sequence: number) {
    this.id = spec.id;
    this.spec = spec;
    this.memoryMiB = spec.memoryMiB;
    this.consolePath = join(spec.directory, 'console.log');
    this.record = {
      driver: 'fake',
      id: spec.id,
      directory: spec.directory,
      pid: 2 ** 22 + sequence, // above the kernel's largest pid, so that a signal reaches no process
      startTicks: String(sequence),
      uid: spec.uid,
      memoryMiB: spec.memoryMiB,
    };
    this.#options = options;
    this.#life = new MachineLife(spec.id);
    this.#life.moveTo('running');
  }

  get state(): MachineState {
    return this.#life.state;
  }

  get exited(): Promise<MachineExit> {
    return this.#life.exited;
  }

  get isGone(): boolean {
    return this.#life.isOver;
  }

  /** The guest's end of the open channel. Errors: `unavailable` without an open channel. */
  get agentEnd(): Duplex {
    if (this.#agentEnd !== undefined) return this.#agentEnd;
    throw new PodvmError('unavailable', `Cannot play the guest of machine ${this.id}: no channel is open`);
  }

  async connect(signal: AbortSignal): Promise<Duplex> {
    if (this.isGone)
      throw new PodvmError('unavailable', `Cannot connect to machine ${this.id}: it is gone, got ${this.state}`);
    await turn();
    signal.throwIfAborted();
    this.#hangUp();
    const [hostEnd, agentEnd] = joinedPair();
    this.#hostEnd = hostEnd;
    this.#agentEnd = agentEnd;
    this.#options.onConnect?.(agentEnd, this);
    return hostEnd;
  }

  /** Reads the file, which the test writes. */
  async consoleTail(bytes: number): Promise<Buffer> {
    const text = await readFile(this.consolePath).catch(() => Buffer.alloc(0));
    return text.subarray(Math.max(0, text.length - bytes));
  }

  async vcpuThreads(): Promise<readonly number[]> {
    this.#life.assertRunning('measure');
    return [this.record.pid];
  }

  async learnDevices(signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('ask');
    signal.throwIfAborted();
  }

  async attachDisk(disk: DiskSpec, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('attach a disk to');
    signal.throwIfAborted();
    if (!/^[a-z0-9-]{1,20}$/.test(disk.serial) || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(disk.file ?? 'device')) {
      throw new PodvmError('invalid', `Cannot attach disk: bad serial or file, got ${disk.serial} ${disk.file}`);
    }
    if (this.disks.has(disk.serial)) {
      throw new PodvmError('alreadyExists', `Cannot attach disk ${disk.serial}: a disk with this serial is attached`);
    }
    const path = disk.file === undefined ? this.spec.directory : join(this.spec.directory, disk.file);
    await access(path).catch((cause: unknown) => {
      throw new PodvmError('failedPrecondition', `Cannot attach disk ${disk.serial}: its file is missing`, { cause });
    });
    this.disks.set(disk.serial, disk);
  }

  async detachDisk(serial: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('detach a disk from');
    signal.throwIfAborted();
    await turn();
    if (!this.disks.delete(serial)) {
      throw new PodvmError('notFound', `Cannot detach disk ${serial}: no such disk is attached`);
    }
  }

  async emptyDisk(serial: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('empty a disk of');
    signal.throwIfAborted();
    if (!this.disks.has(serial))
      throw new PodvmError('notFound', `Cannot empty disk ${serial}: no such disk is attached`);
  }

  async growDisk(serial: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('grow a disk of');
    signal.throwIfAborted();
    if (!this.disks.has(serial))
      throw new PodvmError('notFound', `Cannot grow disk ${serial}: no such disk is attached`);
    this.sizes.set(serial, sizeBytes);
  }

  onDiskError(): void {}

  async attachPort(name: string, signal: AbortSignal): Promise<Duplex> {
    this.#life.assertRunning('attach a port to');
    if (!/^[a-z0-9-]{1,20}$/.test(name)) throw new PodvmError('invalid', `Cannot attach port: bad name, got ${name}`);
    if (this.ports.has(name)) {
      throw new PodvmError('alreadyExists', `Cannot attach port ${name}: a port of this name is attached`);
    }
    if (this.ports.size >= maxPorts) {
      throw new PodvmError('exhausted', `Cannot attach port ${name}: ${maxPorts} ports are attached`);
    }
    await turn();
    if (signal.aborted) throw new PodvmError('cancelled', `Cannot attach port ${name}: cancelled`);
    const [hostEnd, guestEnd] = joinedPair();
    this.ports.set(name, guestEnd);
    return hostEnd;
  }

  async discardTranslations(): Promise<void> {}

  async freezeVmm(): Promise<void> {
    this.#life.assertRunning('freeze');
  }

  async detachPort(name: string, signal: AbortSignal): Promise<void> {
    this.#life.assertRunning('detach a port from');
    signal.throwIfAborted();
    await turn();
    const guestEnd = this.ports.get(name);
    if (guestEnd === undefined) {
      throw new PodvmError('notFound', `Cannot detach port ${name}: no such port is attached`);
    }
    this.ports.delete(name);
    guestEnd.destroy();
  }

  async limitHost(): Promise<void> {
    this.#life.assertRunning('limit');
  }

  async setStartWeight(): Promise<void> {
    this.#life.assertRunning('weigh');
  }

  confine(): Promise<AsyncDisposable> {
    return Promise.resolve({ [Symbol.asyncDispose]: () => Promise.resolve() });
  }

  async stop(signal: AbortSignal): Promise<MachineExit> {
    if (this.#life.state === 'running') {
      this.#life.moveTo('stopping');
      if (this.#options.ignoresPowerButton !== true && !signal.aborted) this.powerOff();
    }
    if (this.isGone) return await this.exited;
    if (!signal.aborted) {
      const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      await Promise.race([this.exited, aborted]);
    }
    return await this.kill();
  }

  kill(): Promise<MachineExit> {
    if (!this.isGone) this.#end({ state: 'failed', reason: 'killed by us', code: 137, tail: [] });
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  /** Powers the guest off. */
  powerOff(): void {
    if (this.#life.state === 'running') this.#life.moveTo('stopping');
    this.#end({ state: 'stopped', reason: 'the guest powered off', code: 0, tail: [] });
  }

  /** Ends the VMM as if it was killed from outside. */
  die(reason = 'the VMM died'): void {
    if (!this.isGone) this.#end({ state: 'failed', reason, code: 'SIGKILL', tail: [guestText(reason)] });
  }

  /** Closes the channel while the machine runs, as when the daemon loses its socket. */
  hangUp(): void {
    this.#hangUp();
  }

  #end(exit: MachineExit): void {
    this.#hangUp();
    for (const guestEnd of this.ports.values()) guestEnd.destroy();
    this.#life.end(exit);
  }

  #hangUp(): void {
    this.#hostEnd?.destroy();
    this.#agentEnd?.destroy();
    this.#hostEnd = undefined;
    this.#agentEnd = undefined;
  }
}

/** Makes two ends of one channel. Destroying one ends the other, as a broken socket does. */
function joinedPair(): [Duplex, Duplex] {
  const [host, agent] = duplexPair();
  for (const end of [host, agent]) end.on('error', () => undefined); // a broken channel shows as 'close'
  host.on('close', () => agent.destroy());
  agent.on('close', () => host.destroy());
  return [host, agent];
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
