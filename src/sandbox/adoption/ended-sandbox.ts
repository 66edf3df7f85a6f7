import { exitOf, type ContainerRecord } from '../container/container-record.ts';
import type { Container, SandboxStatus } from '../sandbox.ts';
import type { AdoptableRecord } from './adopt-steps.ts';
import { sandboxDirectory } from '../recovery/record.ts';
import type { MachineContext } from '../start/machine-steps.ts';
import { recordedStatus, unknownParts, unreachableContainer, UnreachableSandbox } from './unreachable-sandbox.ts';

/** A sandbox that ended in an earlier process or could not be taken over; only its record and logs remain. */
export class EndedSandbox extends UnreachableSandbox {
  readonly containers: readonly Container[];
  readonly status: SandboxStatus;
  readonly ended: Promise<SandboxStatus>;

  constructor(
    { id, pod, parts = unknownParts }: AdoptableRecord,
    path: string,
    containers: readonly EndedRecord[],
    name: Disposable,
    context: Pick<MachineContext, 'removals'>,
  ) {
    const directory = sandboxDirectory(path);
    const { spec, resources, warnings } = pod;
    super({ id, spec, resources, warnings, consolePath: `${directory.machinePath}/console.log` }, context);
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
      volumes: spec.volumes.map(({ name: volume, kind }) => ({ name: volume, mode: kind })),
    };
    this.ended = Promise.resolve(this.status);
    this.holdings.hold('removed', () => name[Symbol.dispose]());
    this.holdings.hold('removed', () => directory[Symbol.asyncDispose]());
  }

  protected whyNot(): string {
    const { state, failure } = this.status;
    return `the sandbox is ${state}${failure === undefined ? '' : ` (${failure})`}`;
  }

  stop(): Promise<SandboxStatus> {
    return this.ended;
  }
}

export type EndedRecord = ContainerRecord & Required<Pick<ContainerRecord, 'exit'>>;

function endedContainer(record: EndedRecord, path: string): Container {
  const exit = exitOf(record.exit);
  return {
    ...unreachableContainer(record.spec, () => `container ${record.spec.name} has exited`),
    status: { ...recordedStatus(record, path), state: 'exited', exit },
    exited: Promise.resolve(exit),
    kill: () => Promise.resolve(),
    stop: () => Promise.resolve(exit),
  };
}
