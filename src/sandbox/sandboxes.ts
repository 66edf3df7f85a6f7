import { randomBytes } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { descriptors, shortOfDescriptors } from '#host/process/descriptors.ts';
import type { Log } from '#host/log/log.ts';
import { traced } from '#host/log/tracing.ts';
import { createGate } from '#host/gate.ts';
import { memoryOf } from '#host/meminfo.ts';
import { Generation } from './generation.ts';
import { defaultLimits, type SandboxLimits } from './limits.ts';
import { LiveSandbox } from './live/live-sandbox.ts';
import { lockDirectory } from './recovery/lock.ts';
import { createNames, createUserIds, keyOf, userIdsOf } from './names.ts';
import { NodeCounts } from './figures/node-counts.ts';
import type { Parts, Surroundings } from './parts.ts';
import { ImageDemand } from './start/image-demand.ts';
import { LeftOvers } from './state/left-overs.ts';
import { createPool } from './start/pool.ts';
import type { PoolSize } from './start/pool-demand.ts';
import { machineSizeOf } from './resources.ts';
import type { Sandbox, Sandboxes, SandboxSpec } from './sandbox.ts';
import { phaseNames } from './start/phase-names.ts';
import type { StartPhase } from './state/phases.ts';
import { startSandbox, type StartContext } from './start/start-sandbox.ts';
import { EndedSandbox } from './adoption/ended-sandbox.ts';
import type { LeftSandbox } from './adoption/left-sandbox.ts';
import { takeOver } from './adoption/take-over.ts';
import type { TemplateChoice } from './spec/template-choice.ts';
import { createTemplates, type Templates } from './start/templates.ts';

export interface OpenSandboxesOptions {
  /** State directory, on the file system of the images; `sandboxes/` is made in it. */
  readonly directory: string;
  readonly parts: Parts;
  readonly log: Log;
  readonly limits?: SandboxLimits;
  /** Machines that wait for a pod; default 0. */
  readonly poolSize?: PoolSize;
  /** Whether a kept sandbox is for this process; others are left to a later one. Default: all are. */
  readonly takesOver?: (spec: Pick<SandboxSpec, 'keptFor'>) => boolean;
  /** The most that pods may share; default `on`. */
  readonly template?: TemplateChoice;
  /** Default: `systemSurroundings`. */
  readonly surroundings?: Omit<Surroundings, 'log'>;
}

/** Disposing stops the sandboxes, disconnects from kept ones, and releases the directory. */
export interface OpenSandboxes extends Sandboxes, AsyncDisposable {
  /**
   * Makes ahead what a first pod would otherwise wait for: the template, where the node's pods share one; with `pool`, also
   * all of the pool's machines.
   */
  warmUp(what: 'template' | 'pool', signal: AbortSignal): Promise<void>;
  /**
   * Starts sandboxes with these parts from now on; existing ones keep theirs. Where the node's pods share a template,
   * sandboxes start with the old parts until a new template is made. Resolves to a promise that settles when no sandbox uses
   * the old parts any more. Errors: `failedPrecondition` when no template can be made from the new parts, and the old ones
   * stay; `cancelled`.
   */
  upgrade(parts: Parts, signal: AbortSignal): Promise<{ readonly unused: Promise<void> }>;
}

/**
 * Takes over the state directory and the kept sandboxes in it, and removes everything else that an earlier process
 * left. Errors: `busy` when another podvm uses it.
 */
export async function openSandboxes(options: OpenSandboxesOptions, signal: AbortSignal): Promise<OpenSandboxes> {
  const { parts, log, limits = defaultLimits, poolSize = 0, template = 'on' } = options;
  const root = join(options.directory, 'sandboxes');
  await mkdir(root, { recursive: true, mode: 0o711 });
  await using undo = new AsyncDisposableStack();
  undo.use(await lockDirectory(root));

  const surroundings = { ...(options.surroundings ?? systemSurroundings), log };
  const shared = {
    root,
    userIds: createUserIds(limits.userIds ?? userIdsOf(await stat(root, { bigint: true }))),
    limits,
    surroundings,
    names: createNames(),
    imageDemand: new ImageDemand(() => Number(surroundings.monotonicNs() / 1_000_000n)),
    gate: createGate(limits.maxStarts),
    leftOvers: new LeftOvers(log, limits.undoAgainMs),
    removals: new LeftOvers(log, limits.undoAgainMs),
    counts: new NodeCounts(phaseNames),
    template,
  };
  const starting = new Set<Promise<unknown>>();
  const templates = createTemplates({ ...shared, parts });
  undo.defer(() => templates.settled());
  // First, before any other sandbox is made here.
  const before = await takeOver({ ...shared, parts, templates }, options.takesOver ?? (() => true), signal);
  for (const sandbox of before) shared.counts.adopted(outcomeOf(sandbox));
  return new SandboxTable({ shared, poolSize, starting, parts, templates, before }, undo.move());
}

type ListedSandbox = LiveSandbox | EndedSandbox | LeftSandbox;

const outcomeOf = (sandbox: ListedSandbox) =>
  sandbox instanceof LiveSandbox ? 'taken' : sandbox instanceof EndedSandbox ? 'ended' : 'left';

interface TableOptions {
  readonly shared: Omit<StartContext, 'parts' | 'templates' | 'pool'>;
  readonly poolSize: PoolSize;
  readonly starting: Set<Promise<unknown>>;
  readonly parts: Parts;
  readonly templates: Templates;
  /** Taken over from an earlier process. */
  readonly before: readonly ListedSandbox[];
}

/** Those of this host, except that it counts as never idle, so that no machine rehearses a container. */
export const systemSurroundings: Omit<Surroundings, 'log'> = {
  nowMs: () => Date.now(),
  monotonicNs: () => process.hrtime.bigint(),
  randomBytes,
  availableBytes: async () => memoryOf(await readFile('/proc/meminfo', 'latin1'), 'MemAvailable') ?? 0,
  idleMs: () => Promise.resolve(0),
  hasDescriptors: (count) => descriptors.hasRoomFor(count),
};

/** Attributes of a pod in a trace, by the names of OpenTelemetry's conventions. */
const attributesOf = ({ namespace, name, uid }: SandboxSpec) => ({
  'k8s.namespace.name': printable(namespace),
  'k8s.pod.name': printable(name),
  'k8s.pod.uid': printable(uid),
});

class SandboxTable implements OpenSandboxes {
  readonly #options: TableOptions;
  readonly #lock: AsyncDisposableStack;
  readonly #sandboxes = new Map<string, ListedSandbox>();
  readonly #starting: Set<Promise<unknown>>;
  readonly #closing = new AbortController();
  readonly #mender: NodeJS.Timeout;
  #mending: Promise<void> | undefined;
  #generation: Generation;

  constructor(options: TableOptions, lock: AsyncDisposableStack) {
    this.#options = options;
    this.#starting = options.starting;
    this.#lock = lock;
    this.#generation = this.#generationOf(options.parts, options.templates);
    for (const sandbox of options.before) this.#add(sandbox, this.#generation.enter());
    const mend = () => void (this.#mending ??= this.#mend().finally(() => (this.#mending = undefined)));
    this.#mender = setInterval(mend, options.shared.limits.mendIntervalMs).unref();
  }

  get #context(): StartContext {
    return this.#generation.context;
  }

  #generationOf(parts: Parts, templates: Templates): Generation {
    const { shared, poolSize } = this.#options;
    const context = { ...shared, parts, templates };
    const onOrder = (isMet: boolean) => {
      if (isMet) shared.counts.poolHits += 1;
      else shared.counts.poolMisses += 1;
    };
    const pool = createPool({ size: poolSize, isBusy: () => this.#starting.size > 0, onOrder }, context);
    return new Generation({ ...context, pool });
  }

  async run(spec: SandboxSpec, signal: AbortSignal): Promise<Sandbox> {
    const { limits, surroundings } = this.#context;
    const { maxSandboxes, maxStarts, maxStartDescriptors } = limits;
    const left = this.#options.shared.leftOvers.size;
    if (this.#sandboxes.size + this.#starting.size + left >= maxSandboxes) {
      const ofWhich = left === 0 ? '' : `, of which ${left} are not completely removed`;
      throw new PodvmError('exhausted', `Cannot make a sandbox: ${maxSandboxes} exist already${ofWhich}`, {
        fix: 'Stop and remove a pod first.',
      });
    }
    const starts = Math.min(this.#starting.size + 1, maxStarts);
    if (!surroundings.hasDescriptors(starts * maxStartDescriptors)) throw shortOfDescriptors('Cannot make a sandbox');
    const generation = this.#generation;
    const leave = generation.enter();
    const starting = AbortSignal.any([signal, this.#closing.signal]);
    const start = traced({ name: 'start sandbox', attributes: attributesOf(spec) }, () =>
      startSandbox(spec, generation.context, starting),
    );
    this.#starting.add(start);
    try {
      const sandbox = await start;
      this.#count(sandbox);
      this.#add(sandbox, leave);
      return sandbox;
    } catch (error) {
      leave();
      const cause = this.#asCause(error);
      this.counts.startFailed(cause);
      throw cause;
    } finally {
      this.#starting.delete(start);
    }
  }

  /** Counts the steps of a start: the one that connects the guest when it ends. */
  #count(sandbox: LiveSandbox): void {
    const { phases } = sandbox.status;
    this.counts.started(phases);
    const isLate = ({ name }: StartPhase) => phases.every((phase) => phase.name !== name);
    const countLate = () => this.counts.started(sandbox.status.phases.filter(isLate));
    sandbox.connected.then(countLate, () => undefined); // the sandbox says so
  }

  /** `leave`: ends its use of a generation of parts. */
  #add(sandbox: ListedSandbox, leave: () => void): void {
    const key = keyOf(sandbox.spec);
    this.#sandboxes.set(key, sandbox);
    sandbox.onRemoved(() => {
      this.#sandboxes.delete(key);
      leave();
    });
  }

  /** The first failure goes to the caller; failures of undoing it are logged for the operator. */
  #asCause(error: unknown): unknown {
    if (!(error instanceof SuppressedError)) return error;
    this.#context.surroundings.log.error('start not completely undone', error.error);
    return this.#asCause(error.suppressed);
  }

  /**
   * Lets the network restore what others removed from running pods, and remove what is left of others. Fails pods that it cannot
   * restore.
   */
  async #mend(): Promise<void> {
    const { parts, surroundings } = this.#context;
    const running = [...this.#sandboxes.values()].flatMap((sandbox) => {
      const { state, vmmPid } = sandbox.status;
      return sandbox instanceof LiveSandbox && state === 'ready' && vmmPid !== undefined ? [{ sandbox, vmmPid }] : [];
    });
    const pods = running.map(({ sandbox, vmmPid: pid }) => ({ sandboxId: sandbox.id, pid }));
    try {
      const broken = await parts.network.mend(pods, this.#closing.signal);
      for (const { sandbox } of running) {
        const why = broken.get(sandbox.id);
        if (why !== undefined) sandbox.breakDown(`the pod has lost its network: ${why}`);
      }
    } catch (error) {
      if (!this.#closing.signal.aborted)
        surroundings.log.warn('networks of pods not checked', { why: messageOf(error) });
    }
  }

  async warmUp(what: 'template' | 'pool', signal: AbortSignal): Promise<void> {
    const { limits, templates, pool, template } = this.#context;
    const { nominal } = machineSizeOf('a machine', {}, limits.size);
    if (nominal !== undefined && template === 'on') await templates.ensure({ ...nominal, hasNic: true }, signal);
    if (what === 'pool') await pool.filled();
  }

  async upgrade(parts: Parts, signal: AbortSignal): Promise<{ readonly unused: Promise<void> }> {
    const { shared } = this.#options;
    await using undo = new AsyncDisposableStack();
    const templates = createTemplates({ ...shared, parts });
    undo.defer(() => templates.settled()); // otherwise the machine of a cancelled one would outlive this process
    const { nominal } = machineSizeOf('a machine', {}, shared.limits.size);
    if (nominal !== undefined && shared.template === 'on') {
      const both = AbortSignal.any([signal, this.#closing.signal]);
      if ((await templates.ensure({ ...nominal, hasNic: true }, both)) === 'boot') {
        throw new PodvmError(
          'failedPrecondition',
          'Cannot change to the new parts: no template can be made from them',
          { fix: 'See the preceding lines of the log for the reason.' },
        );
      }
    }
    this.#closing.signal.throwIfAborted();
    const old = this.#generation;
    this.#generation = this.#generationOf(parts, templates);
    undo.move();
    await old.close();
    return { unused: old.retire() };
  }

  get waitingMachines(): number {
    return this.#context.pool.waiting;
  }

  get memoryReserveBytes(): number {
    return this.#context.limits.memoryReserveBytes;
  }

  get starting(): number {
    return this.#starting.size;
  }

  get counts(): NodeCounts {
    return this.#options.shared.counts;
  }

  async templateMadeAt(): Promise<Date | undefined> {
    const { limits, parts } = this.#context;
    const { nominal } = machineSizeOf('a machine', {}, limits.size);
    return nominal === undefined ? undefined : await parts.driver.templateMadeAt({ ...nominal, hasNic: true });
  }

  list(): readonly Sandbox[] {
    return [...this.#sandboxes.values()];
  }

  get(namespace: string, name: string): Sandbox | undefined {
    return this.#sandboxes.get(keyOf({ namespace, name, uid: '' }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new PodvmError('cancelled', 'podvm is stopping'));
    clearInterval(this.#mender);
    await Promise.allSettled([...this.#starting, this.#mending]);
    const all = [...this.#sandboxes.values()];
    await Promise.allSettled(all.map((sandbox) => (sandbox.isKept ? sandbox.leave() : sandbox.remove())));
    await this.#generation.close();
    const { leftOvers, removals } = this.#options.shared;
    await Promise.all([leftOvers, removals].map((each) => each[Symbol.asyncDispose]()));
    await this.#lock.disposeAsync();
  }
}
