import { PodvmError } from '#base/errors.ts';
import { Holdings } from '../holdings.ts';
import { exitOf, type ContainerRecord } from '../container/container-record.ts';
import { logPathOf } from '../log/log-writer.ts';
import type { Container, ContainerStatus, Resources, Sandbox, SandboxSpec, SandboxStatus } from '../sandbox.ts';
import type { AdoptableRecord } from './adopt-steps.ts';
import { sandboxDirectory } from '../recovery/record.ts';

/** A sandbox that ended in an earlier process or could not be taken over; only its record and logs remain. */
export class EndedSandbox implements Sandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly consolePath: string;
  readonly resources: Resources;
  readonly warnings: readonly string[];
  readonly containers: readonly Container[];
  readonly status: SandboxStatus;
  readonly ended: Promise<SandboxStatus>;
  readonly isKept = true;
  readonly #holdings = new Holdings();

  constructor(
    { id, pod, parts = unknownParts }: AdoptableRecord,
    path: string,
    containers: readonly EndedRecord[],
    name: Disposable,
  ) {
    const directory = sandboxDirectory(path);
    this.id = id;
    this.spec = pod.spec;
    this.consolePath = `${directory.machinePath}/console.log`;
    this.resources = pod.resources;
    this.warnings = pod.warnings;
    this.containers = containers.map((record) => endedContainer(record, path));
    this.status = {
      id,
      state: pod.state === 'stopped' ? 'stopped' : 'failed',
      createdAt: new Date(pod.createdAt),
      addresses: pod.addresses,
      parts,
      accelerator: pod.accelerator,
      ...(pod.failure === undefined ? {} : { failure: pod.failure }),
      phases: pod.phases,
      containers: this.containers.map(({ status }) => status),
      volumes: pod.spec.volumes.map(({ name: volume, kind }) => ({ name: volume, mode: kind })),
    };
    this.ended = Promise.resolve(this.status);
    this.#holdings.hold('removed', () => name[Symbol.dispose]());
    this.#holdings.hold('removed', () => directory[Symbol.asyncDispose]());
  }

  /** Returns no lines: its `failure` has the last ones. */
  consoleTail(): Promise<readonly never[]> {
    return Promise.resolve([]);
  }

  container(name: string): Container | undefined {
    return this.containers.findLast(({ status }) => status.name === name);
  }

  createContainer(): Promise<never> {
    return this.#refuse('create a container');
  }

  resize(): Promise<never> {
    return this.#refuse('resize');
  }

  updateVolume(): Promise<never> {
    return this.#refuse('update a volume');
  }

  dial(): Promise<never> {
    return this.#refuse('connect to a port');
  }

  stats(): Promise<never> {
    return this.#refuse('measure');
  }

  metrics(): Promise<never> {
    return this.#refuse('measure');
  }

  vmmPssKiB(): Promise<never> {
    return this.#refuse('measure');
  }

  hostFigures(): Promise<never> {
    return this.#refuse('measure');
  }

  dropped(): Promise<never> {
    return this.#refuse('measure');
  }

  examine(): Promise<never> {
    return this.#refuse('examine');
  }

  onDiskTrouble(): void {}

  stop(): Promise<SandboxStatus> {
    return this.ended;
  }

  leave(): Promise<void> {
    return Promise.resolve();
  }

  onRemoved(forget: () => void): void {
    this.#holdings.hold('removed', forget);
  }

  remove(): Promise<void> {
    return this.#holdings.remove();
  }

  #refuse(verb: string): Promise<never> {
    const { state, failure } = this.status;
    return Promise.reject(refusal(verb, `the sandbox is ${state}${failure === undefined ? '' : ` (${failure})`}`));
  }
}

/** Versions of a sandbox whose record does not name them. */
const unknownParts: SandboxStatus['parts'] = { key: '', qemu: '', kernel: '', crun: '', agent: '' };

const refusal = (verb: string, why: string) => new PodvmError('failedPrecondition', `Cannot ${verb}: ${why}`);

export type EndedRecord = ContainerRecord & Required<Pick<ContainerRecord, 'exit'>>;

function endedContainer(record: EndedRecord, path: string): Container {
  const { id, spec, imageId, user, mounts, createdAt, startedAt } = record;
  const exit = exitOf(record.exit);
  const status: ContainerStatus = {
    id,
    name: spec.name,
    attempt: spec.attempt,
    state: 'exited',
    image: spec.image,
    imageId,
    createdAt: new Date(createdAt),
    ...(startedAt === undefined ? {} : { startedAt: new Date(startedAt) }),
    ...(user === undefined ? {} : { user }),
    mounts,
    exit,
    logPath: logPathOf(path, spec),
  };
  const refuse = (verb: string) => Promise.reject(refusal(verb, `container ${spec.name} has exited`));
  return {
    status,
    exited: Promise.resolve(exit),
    stdin: undefined,
    resources: spec.resources,
    warnings: [],
    start: () => refuse('start'),
    kill: () => Promise.resolve(),
    stop: () => Promise.resolve(exit),
    exec: () => refuse('run a command'),
    resize: () => Promise.resolve(),
    update: () => refuse('change limits'),
    reopenLog: () => refuse('reopen the log'),
    follow: () => ({ ended: Promise.resolve(), stop: () => {} }),
    remove: () => Promise.resolve(),
  };
}
