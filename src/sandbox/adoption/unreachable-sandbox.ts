import { PodvmError } from '#base/errors.ts';
import { Holdings } from '../state/holdings.ts';
import { logPathOf } from '../log/log-writer.ts';
import type { ContainerRecord } from '../container/container-record.ts';
import type { LeftOvers } from '../state/left-overs.ts';
import type { MachineContext } from '../start/machine-steps.ts';
import type {
  Container,
  ContainerStatus,
  Resources,
  Sandbox,
  SandboxSpec,
  SandboxState,
  SandboxStatus,
} from '../sandbox.ts';

/** A sandbox of an earlier process whose guest cannot be called. It refuses whatever needs the guest. */
export abstract class UnreachableSandbox implements Sandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly consolePath: string;
  readonly resources: Resources;
  readonly warnings: readonly string[];
  readonly isKept = true;
  /** What is released when it is removed. */
  protected readonly holdings = new Holdings();
  readonly #removals: LeftOvers;

  abstract readonly status: SandboxStatus;
  abstract readonly containers: readonly Container[];
  abstract readonly ended: Promise<SandboxStatus>;
  abstract stop(): Promise<SandboxStatus>;

  constructor(
    facts: Pick<Sandbox, 'id' | 'spec' | 'consolePath' | 'resources' | 'warnings'>,
    { removals }: Pick<MachineContext, 'removals'>,
  ) {
    this.#removals = removals;
    this.id = facts.id;
    this.spec = facts.spec;
    this.consolePath = facts.consolePath;
    this.resources = facts.resources;
    this.warnings = facts.warnings;
  }

  /** Completes `Cannot do this: `. */
  protected abstract whyNot(): string;

  /** Returns no lines: they are in the failure of one that has ended. */
  consoleTail(): Promise<readonly never[]> {
    return Promise.resolve([]);
  }

  get state(): SandboxState {
    return this.status.state;
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

  setPaused(isPaused: boolean): Promise<never> {
    return this.#refuse(isPaused ? 'pause' : 'unpause');
  }

  onDiskTrouble(): void {}

  leave(): Promise<void> {
    return Promise.resolve();
  }

  onRemoved(forget: () => void): void {
    this.holdings.hold('removed', forget);
  }

  remove(): Promise<void> {
    return this.#removals.undo(this.#remove);
  }

  readonly #remove = async (): Promise<void> => {
    await this.stop();
    await this.holdings.remove();
  };

  #refuse(verb: string): Promise<never> {
    return refusal(verb, this.whyNot());
  }
}

/** Versions of a sandbox whose record does not name them. */
export const unknownParts: SandboxStatus['parts'] = { key: '', qemu: '', kernel: '', crun: '', agent: '' };

export const refusal = (verb: string, why: string) =>
  Promise.reject(new PodvmError('failedPrecondition', `Cannot ${verb}: ${why}`));

/** Status from a record, without state and exit. `path`: the directory of the sandbox. */
export function recordedStatus(
  { id, spec, imageId, user, mounts, createdAt, startedAt }: ContainerRecord,
  path: string,
): Omit<ContainerStatus, 'state' | 'exit'> {
  return {
    id,
    name: spec.name,
    attempt: spec.attempt,
    image: spec.image,
    imageId,
    createdAt: new Date(createdAt),
    ...(startedAt === undefined ? {} : { startedAt: new Date(startedAt) }),
    ...(user === undefined ? {} : { user }),
    mounts,
    logPath: logPathOf(path, spec),
  };
}

/** The part of a container that needs its guest, which is refused with the reason. */
export function unreachableContainer({ resources }: ContainerRecord['spec'], whyNot: () => string) {
  const refuse = (verb: string) => refusal(verb, whyNot());
  return {
    stdin: undefined,
    resources,
    warnings: [],
    start: () => refuse('start'),
    exec: () => refuse('run a command'),
    resize: () => Promise.resolve(),
    update: () => refuse('change limits'),
    reopenLog: () => refuse('reopen the log'),
    follow: () => ({ ended: Promise.resolve(), stop: () => {} }),
    remove: () => Promise.resolve(),
  } satisfies Partial<Container>;
}
