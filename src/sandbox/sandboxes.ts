import { randomBytes } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log.ts';
import { createGate } from '#host/gate.ts';
import { defaultLimits, type SandboxLimits } from './limits.ts';
import type { LiveSandbox } from './live-sandbox.ts';
import { lockDirectory } from './recovery/lock.ts';
import { createNames, createUserIds, keyOf, userIdsOf } from './names.ts';
import type { Parts, Surroundings } from './parts.ts';
import { createPool } from './start/pool.ts';
import { machineSizeOf } from './resources.ts';
import type { Sandbox, Sandboxes, SandboxSpec } from './sandbox.ts';
import { startSandbox, type StartContext } from './start/start-sandbox.ts';
import { sweep } from './recovery/sweep.ts';
import type { TemplateChoice } from './template-choice.ts';
import { createTemplates } from './start/templates.ts';

export interface OpenSandboxesOptions {
  /** State directory, on the file system of the images; `sandboxes/` is made in it. */
  readonly directory: string;
  readonly parts: Parts;
  readonly log: Log;
  readonly limits?: SandboxLimits;
  /** Machines that wait for a pod; default 0. */
  readonly poolSize?: number;
  /** What pods may share at most; default `on`. */
  readonly template?: TemplateChoice;
  /** Default: the system's. */
  readonly surroundings?: Omit<Surroundings, 'log'>;
}

/** Disposing stops what still runs and gives the directory free. */
export interface OpenSandboxes extends Sandboxes, AsyncDisposable {
  /**
   * Makes what a first pod would wait for otherwise: the template, where the node's pods share one; or all of the pool's
   * machines, too.
   */
  warmUp(what: 'template' | 'pool', signal: AbortSignal): Promise<void>;
}

/**
 * Takes the state directory over and clears away what a killed process left in it. Errors: `busy` when another
 * podvm works in it.
 */
export async function openSandboxes(options: OpenSandboxesOptions, signal: AbortSignal): Promise<OpenSandboxes> {
  const { parts, log, limits = defaultLimits, poolSize = 0, template = 'on' } = options;
  const root = join(options.directory, 'sandboxes');
  await mkdir(root, { recursive: true, mode: 0o711 });
  await using undo = new AsyncDisposableStack();
  undo.use(await lockDirectory(root));
  await sweep(root, parts, log, signal);

  const surroundings = { ...(options.surroundings ?? systemSurroundings), log };
  const shared = {
    root,
    userIds: createUserIds(limits.userIds ?? userIdsOf(await stat(root, { bigint: true }))),
    parts,
    limits,
    surroundings,
  };
  const templates = createTemplates(shared);
  undo.defer(() => templates.settled());
  const starting = new Set<Promise<unknown>>();
  const pool = createPool({ size: poolSize, isBusy: () => starting.size > 0 }, { ...shared, templates });
  undo.use(pool);
  const context: StartContext = {
    ...shared,
    names: createNames(),
    templates,
    pool,
    gate: createGate(limits.maxStarts),
    template,
  };
  return new SandboxTable(context, starting, undo.move());
}

const systemSurroundings: Omit<Surroundings, 'log'> = {
  nowMs: () => Date.now(),
  monotonicNs: () => process.hrtime.bigint(),
  randomBytes,
  availableBytes: async () => availableBytesOf(await readFile('/proc/meminfo', 'latin1')),
};

/** `MemAvailable`, in bytes (proc(5)). */
function availableBytesOf(meminfo: string): number {
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024;
}

class SandboxTable implements OpenSandboxes {
  readonly #context: StartContext;
  readonly #lock: AsyncDisposableStack;
  readonly #sandboxes = new Map<string, LiveSandbox>();
  readonly #starting: Set<Promise<unknown>>;
  readonly #closing = new AbortController();

  constructor(context: StartContext, starting: Set<Promise<unknown>>, lock: AsyncDisposableStack) {
    this.#context = context;
    this.#starting = starting;
    this.#lock = lock;
  }

  async run(spec: SandboxSpec, signal: AbortSignal): Promise<Sandbox> {
    const { maxSandboxes } = this.#context.limits;
    if (this.#sandboxes.size + this.#starting.size >= maxSandboxes) {
      throw new PodvmError('exhausted', `Cannot make a sandbox: ${maxSandboxes} exist already`);
    }
    const start = startSandbox(spec, this.#context, AbortSignal.any([signal, this.#closing.signal]));
    this.#starting.add(start);
    try {
      const sandbox = await start;
      this.#sandboxes.set(keyOf(spec), sandbox);
      sandbox.onRemoved(() => this.#sandboxes.delete(keyOf(spec)));
      return sandbox;
    } catch (error) {
      throw this.#asCause(error);
    } finally {
      this.#starting.delete(start);
    }
  }

  /** What failed first is the caller's business; an undo that failed on the way out is the operator's. */
  #asCause(error: unknown): unknown {
    if (!(error instanceof SuppressedError)) return error;
    this.#context.surroundings.log.error('start not wholly undone', error.error);
    return this.#asCause(error.suppressed);
  }

  async warmUp(what: 'template' | 'pool', signal: AbortSignal): Promise<void> {
    const { limits, templates, pool, template } = this.#context;
    const { nominal } = machineSizeOf('a machine', {}, limits.size);
    if (nominal !== undefined && template === 'on') await templates.ensure({ ...nominal, hasNic: true }, signal);
    if (what === 'pool') await pool.filled();
  }

  get waitingMachines(): number {
    return this.#context.pool.waiting;
  }

  list(): readonly Sandbox[] {
    return [...this.#sandboxes.values()];
  }

  get(namespace: string, name: string): Sandbox | undefined {
    return this.#sandboxes.get(keyOf({ namespace, name, uid: '' }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new PodvmError('cancelled', 'podvm is stopping'));
    await Promise.allSettled(this.#starting);
    await Promise.allSettled([...this.#sandboxes.values()].map((sandbox) => sandbox.remove()));
    await this.#lock.disposeAsync();
  }
}
