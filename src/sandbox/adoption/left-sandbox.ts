import { messageOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import type { Machine } from '#vm/driver.ts';
import { exitOf, type ContainerRecord } from '../container/container-record.ts';
import { createMoves, type Moves } from '../state/moves.ts';
import { sandboxDirectory, type AnyRecord, type PodRecord } from '../recovery/record.ts';
import type { MachineContext } from '../start/machine-steps.ts';
import {
  sandboxMoves,
  type Container,
  type ContainerExit,
  type ContainerStatus,
  type SandboxSpec,
  type SandboxState,
  type SandboxStatus,
} from '../sandbox.ts';
import {
  recordedStatus,
  refusal,
  unknownParts,
  unreachableContainer,
  UnreachableSandbox,
} from './unreachable-sandbox.ts';

export interface LeftParts {
  readonly record: AnyRecord;
  /** Absent if this podvm cannot read it. */
  readonly pod: PodRecord | undefined;
  /** Who has made the pod; undefined if this podvm cannot read it. */
  readonly keptFor: SandboxSpec['keptFor'];
  readonly containers: readonly ContainerRecord[];
  /** Directory of the sandbox. */
  readonly path: string;
  /** Why this process does not take it over. */
  readonly why: string;
  /** Undefined if the VMM cannot be followed, so that its end is not noticed. */
  readonly machine: Machine | undefined;
  /** Ends the VMM, and releases what it used. Another call tries again. */
  readonly end: () => Promise<void>;
  readonly nowMs: () => number;
  readonly log: Log;
}

/**
 * A running sandbox that another podvm can take over, but not this one. It is `ready`, so that its client does not start
 * the pod a second time, with the containers that are on record. All that this process can do is end it as a whole: a
 * call that stops one of its containers does. Its records stay as they are, for the podvm that can read them.
 */
export class LeftSandbox extends UnreachableSandbox {
  readonly containers: readonly LeftContainer[];
  readonly ended: Promise<SandboxStatus>;
  readonly #left: LeftParts;
  readonly #moves: Moves<SandboxState>;
  readonly #settleEnded: (status: SandboxStatus) => void;
  #failure: string | undefined;
  #ending: Promise<SandboxStatus> | undefined;

  constructor(left: LeftParts, held: readonly Disposable[], context: Pick<MachineContext, 'removals'>) {
    const { record, pod, keptFor, path, containers, machine, log } = left;
    const directory = sandboxDirectory(path);
    const spec = pod?.spec ?? namedSpec(record, keptFor);
    const facts = { id: record.id, spec, warnings: pod?.warnings ?? [], resources: pod?.resources ?? {} };
    super({ ...facts, consolePath: `${directory.machinePath}/console.log` }, context);
    this.#left = left;
    this.#moves = createMoves(`sandbox ${record.id}`, sandboxMoves, 'ready', (state, why) =>
      log.info('sandbox moved', { state, why }),
    );
    const { promise, resolve } = Promise.withResolvers<SandboxStatus>();
    this.ended = promise;
    this.#settleEnded = resolve;
    const site = { path, whyNot: () => this.whyNot(), stop: () => this.stop() };
    this.containers = containers.map((each) => leftContainer(each, site));
    for (const each of held) this.holdings.hold('removed', () => each[Symbol.dispose]());
    this.holdings.hold('removed', () => directory[Symbol.asyncDispose]());
    machine?.exited
      .then(({ reason }) => this.lose(reason))
      .catch((error: unknown) => log.error('sandbox not completely ended', error));
  }

  get status(): SandboxStatus {
    const { record, pod, machine, why } = this.#left;
    const { state } = this.#moves;
    const runs = state === 'ready' || state === 'stopping';
    const pid = machine?.record.pid ?? record.machine?.pid;
    return {
      id: this.id,
      state,
      createdAt: new Date(pod?.createdAt ?? record.createdAt),
      addresses: pod?.addresses ?? [],
      parts: record.parts ?? unknownParts,
      ...(pod === undefined ? {} : { accelerator: pod.accelerator }),
      ...(runs ? { leftAlone: why } : {}),
      ...(runs && pid !== undefined ? { vmmPid: pid } : {}),
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
      phases: pod?.phases ?? [],
      containers: this.containers.map(({ status }) => status),
      volumes: this.spec.volumes.map(({ name: volume, kind }) => ({ name: volume, mode: kind })),
    };
  }

  protected whyNot(): string {
    const { state } = this.#moves;
    if (state === 'ready') return this.#left.why;
    return `the sandbox is ${state}${this.#failure === undefined ? '' : ` (${this.#failure})`}`;
  }

  /** Ends the machine at once: its agent cannot be asked to end the containers first. */
  stop(): Promise<SandboxStatus> {
    return this.#end({ kind: 'stop', why: 'asked to' });
  }

  /** Ends it as failed. */
  async lose(why: string): Promise<void> {
    await this.#end({ kind: 'failure', why });
  }

  #end(ending: { readonly kind: 'stop' | 'failure'; readonly why: string }): Promise<SandboxStatus> {
    this.#ending ??= this.#finish(ending);
    return this.#ending;
  }

  async #finish({ kind, why }: { readonly kind: 'stop' | 'failure'; readonly why: string }): Promise<SandboxStatus> {
    this.#moves.moveTo('stopping', why);
    if (kind === 'failure') this.#failure = why;
    try {
      await this.#left.end();
    } catch (error) {
      this.#left.log.error('sandbox not completely cleaned up', error);
      this.#failure ??= messageOf(error);
      this.holdings.hold('ended', () => this.#left.end()); // `remove` tries it again
    }
    this.#moves.moveTo(this.#failure === undefined ? 'stopped' : 'failed', this.#failure ?? 'all is undone');
    const finishedAt = new Date(this.#left.nowMs());
    for (const container of this.containers) container.lose(this.#failure ?? 'the sandbox was stopped', finishedAt);
    this.#settleEnded(this.status);
    return this.status;
  }
}

interface LeftSite {
  readonly path: string;
  readonly whyNot: () => string;
  readonly stop: () => Promise<unknown>;
}

interface LeftContainer extends Container {
  /** Called when the machine has ended. */
  lose(why: string, at: Date): void;
}

/** A container as its record shows it, until its machine ends. */
function leftContainer(record: ContainerRecord, { path, whyNot, stop }: LeftSite): LeftContainer {
  const recorded = recordedStatus(record, path);
  const { startedAt, createdAt } = recorded;
  const { promise: exited, resolve } = Promise.withResolvers<ContainerExit>();
  let exit = record.exit === undefined ? undefined : exitOf(record.exit);
  if (exit !== undefined) resolve(exit);
  const why = () => (exit === undefined ? whyNot() : `container ${record.spec.name} has exited`);
  return {
    ...unreachableContainer(record.spec, why),
    get status(): ContainerStatus {
      if (exit !== undefined) return { ...recorded, state: 'exited', exit };
      return { ...recorded, state: startedAt === undefined ? 'created' : 'running' };
    },
    exited,
    kill: () => (exit === undefined ? refusal('send a signal', whyNot()) : Promise.resolve()),
    async stop() {
      if (exit === undefined) await stop(); // as for a guest that hangs
      return await exited;
    },
    lose(cause, at) {
      if (exit !== undefined) return;
      const begun = startedAt ?? createdAt; // later than now, if the host's date was set back
      exit = { exitCode: 137, reason: 'SandboxFailed', why: cause, finishedAt: begun > at ? begun : at };
      resolve(exit);
    },
  };
}

/** What the fields of every version tell of a pod. */
const namedSpec = (
  { namespace, name, podUid: uid, cgroupParent }: AnyRecord,
  keptFor: SandboxSpec['keptFor'],
): SandboxSpec => ({
  ...{ namespace, name, uid, isKept: true },
  ...(keptFor === undefined ? {} : { keptFor }),
  ...(cgroupParent === undefined ? {} : { cgroupParent }),
  ...{ labels: {}, annotations: {}, hostname: name, network: 'cni', template: 'on', images: [], hostPorts: [] },
  ...{ sctp: false, hostAliases: [], sysctls: {}, sharePidNamespace: false, volumes: [], resources: {} },
  dns: { policy: 'Default', nameservers: [], searches: [], options: [] },
});
