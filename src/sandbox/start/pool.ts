import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, PodvmError } from '#base/errors.ts';
import { traced } from '#host/log/tracing.ts';
import { Holdings } from '../state/holdings.ts';
import { createPhases } from '../state/phases.ts';
import { machineSizeOf } from '../resources.ts';
import type { MachineContext, MachineMade, MachineOrder } from './machine-steps.ts';
import { PoolDemand, type PoolSize } from './pool-demand.ts';
import { runSteps } from './run-steps.ts';
import { isImageThere, spareSteps } from './spare-steps.ts';

/** A waiting machine. */
export interface Spare {
  /** The finished steps of a start. */
  readonly made: MachineMade;
  readonly holdings: Holdings;
}

/** Machines that wait for a pod: restored, exercised, unassigned. Each is handed out once and then replaced. */
export interface Pool extends AsyncDisposable {
  /** Number of waiting machines. */
  readonly waiting: number;
  /** A spare that fits the order, then owned by the caller; undefined if none waits or fits. */
  take(order: MachineOrder): Spare | undefined;
  /** Discards all waiting machines and the one that is being made; while memory is scarce, no others are made. */
  giveBack(why: string): Promise<void>;
  /** Settles when the wanted number waits, or when that is currently not possible. */
  filled(): Promise<void>;
}

export interface PoolOptions {
  /** Machines to keep waiting; 0: no pool. */
  readonly size: PoolSize;
  /** True while a pod is being started, which gets the processor first. */
  readonly isBusy: () => boolean;
  /** Called with each order that the pool is for; `isMet`: a machine waited. */
  readonly onOrder: (isMet: boolean) => void;
}

/** Deadline for making a spare, in `ms`. */
const makeTimeoutMs = 120_000;
/** Interval of checks of the spares, in `ms`. */
const tendIntervalMs = 5_000;
/** Time in which a pod that has just got its machine has the processor to itself, in `ms`, to make its containers. */
const settleMs = 2_000;
/** Pause after a failure, in `ms`. */
const backOffMs = 30_000;

export function createPool(options: PoolOptions, context: MachineContext): Pool {
  return options.size !== 0 ? new SparePool(options, context) : noPool;
}

const noPool: Pool = {
  waiting: 0,
  take: () => undefined,
  giveBack: () => Promise.resolve(),
  filled: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
};

class SparePool implements Pool {
  readonly #options: PoolOptions;
  readonly #context: MachineContext;
  readonly #order: MachineOrder;
  readonly #closing = new AbortController();
  readonly #tending: Promise<void>;
  readonly #demand: PoolDemand;
  #spares: Spare[] = [];
  /** Whether the waiting machines come from a template; false where none can be made and machines boot cold. */
  #hasTemplate = false;
  #quietUntilNs = 0n;
  #wake = Promise.withResolvers<void>();
  /** Settles when the machines that are being discarded are gone. */
  #discarding: Promise<void> = Promise.resolve();
  /** The machine that is being made. */
  #making: { readonly stop: AbortController; readonly ended: Promise<void> } | undefined;
  /** Callers of `filled()`. */
  #waiters: (() => void)[] = [];

  constructor(options: PoolOptions, context: MachineContext) {
    this.#options = options;
    this.#context = context;
    const size = machineSizeOf('a spare machine', {}, context.limits.size);
    this.#order = { size, network: 'cni', template: 'on', owner: undefined };
    this.#demand = new PoolDemand(options.size, context.limits.maxSpares);
    this.#tending = this.#tend();
  }

  get waiting(): number {
    return this.#spares.length;
  }

  take({ size, network, template }: MachineOrder): Spare | undefined {
    const mine = this.#order;
    const suits =
      (network === mine.network || network === 'given') && // the tap moves into the pod's netns
      template === mine.template &&
      size.nominal !== undefined &&
      size.scratchBytes === mine.size.scratchBytes;
    if (suits) this.#demand.ordered(this.#nowMs);
    const spare = suits ? this.#spares.pop() : undefined; // the newest one has the images of the last pods
    if (suits) this.#options.onOrder(spare !== undefined);
    if (spare !== undefined) {
      this.#quietUntilNs = this.#context.surroundings.monotonicNs() + BigInt(settleMs) * 1_000_000n;
      this.#wake.resolve();
    }
    return spare;
  }

  async giveBack(why: string): Promise<void> {
    const making = this.#making;
    making?.stop.abort(new PodvmError('cancelled', `Cannot make a spare machine: ${why}`));
    await Promise.all([this.#drain(why), making?.ended]);
  }

  filled(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.push(resolve);
    this.#wake.resolve();
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new PodvmError('cancelled', 'podvm is stopping'));
    this.#wake.resolve();
    await this.#tending;
    await this.#drain('the pool is closed');
    this.#tellWaiters();
  }

  /** The only place where spares are made. A failed round delays the next one. */
  async #tend(): Promise<void> {
    const closed = this.#closing.signal;
    while (!closed.aborted) {
      this.#wake = Promise.withResolvers();
      let pauseMs = backOffMs;
      try {
        pauseMs = await this.#round();
      } catch (error) {
        if (closed.aborted) return;
        this.#context.surroundings.log.error('spare machine not made', error);
        this.#tellWaiters();
      }
      if (pauseMs > 0) await this.#rest(pauseMs);
    }
  }

  /** Discards machines that are not wanted, and makes one that is. Returns the time until the next round, in `ms`. */
  async #round(): Promise<number> {
    const scarcity = await this.#scarcity();
    if (scarcity !== undefined) await this.#drain(scarcity);
    else if (!(await this.#isTemplateCurrent())) await this.#drain('their template changed');
    else if (!(await this.#areImagesThere())) await this.#drain('their image was removed');
    const wanted = this.#demand.wanted(this.#nowMs);
    if (this.#spares.length > wanted) await this.#drain('fewer are needed', wanted);
    const isScarce = scarcity !== undefined;
    if (!isScarce && this.#spares.length < wanted && !this.#isBusy) {
      await this.#addSpare();
      return 0;
    }
    if (isScarce || this.#spares.length >= wanted) this.#tellWaiters();
    return isScarce ? backOffMs : this.#isBusy ? 50 : tendIntervalMs;
  }

  async #scarcity(): Promise<string | undefined> {
    const { limits, surroundings } = this.#context;
    const { minAvailableBytes, memoryReserveBytes, startBytes } = limits;
    const least = Math.max(minAvailableBytes, memoryReserveBytes + startBytes); // a pod must not be refused for a spare
    if ((await surroundings.availableBytes()) < least) return 'memory is scarce';
    if (!surroundings.hasDescriptors(limits.maxStartDescriptors)) return 'file descriptors are scarce';
    return undefined;
  }

  #tellWaiters(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  /** Monotonic time, in `ms`. */
  get #nowMs(): number {
    return Number(this.#context.surroundings.monotonicNs() / 1_000_000n);
  }

  get #isBusy(): boolean {
    return this.#options.isBusy() || this.#context.surroundings.monotonicNs() < this.#quietUntilNs;
  }

  /** Makes a machine, unless its memory is wanted back before. Nothing of it is left then, or after an error. */
  async #addSpare(): Promise<void> {
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#closing.signal, AbortSignal.timeout(makeTimeoutMs)]);
    const making = traced({ name: 'make spare machine' }, () => this.#makeSpare(signal));
    this.#making = { stop, ended: making.catch(() => undefined) };
    try {
      await making;
    } catch (error) {
      if (!stop.signal.aborted || this.#closing.signal.aborted) throw error;
      this.#context.surroundings.log.info('spare machine not made', { why: messageOf(error) });
    } finally {
      this.#making = undefined;
    }
  }

  async #makeSpare(signal: AbortSignal): Promise<void> {
    const { surroundings } = this.#context;
    const startedMs = this.#nowMs;
    const phases = createPhases(surroundings.monotonicNs);
    const holdings = new Holdings();
    await using _undoing = this.#context.leftOvers.undoing(holdings);
    const site = { context: this.#context, order: this.#order, phases };
    const made = await runSteps(spareSteps, { site, phases, holdings }, signal);
    this.#hasTemplate = await this.#isThereTemplate();
    signal.throwIfAborted();
    const spare: Spare = { made, holdings: new Holdings().takeFrom(holdings) };
    this.#spares.push(spare);
    made.machine.exited
      .then(() => this.#lose(spare))
      .catch((error: unknown) =>
        surroundings.log.error('dead spare machine not removed', error, { sandbox: made.record.id }),
      );
    surroundings.log.info('spare machine made', { sandbox: made.record.id, ms: this.#nowMs - startedMs });
  }

  /** Whether the template of the spares still exists: its key covers all parts that it is made from. */
  async #isTemplateCurrent(): Promise<boolean> {
    return this.#spares.length === 0 || !this.#hasTemplate || (await this.#isThereTemplate());
  }

  /** A machine's link to an image that was removed would keep the file on the disk. */
  async #areImagesThere(): Promise<boolean> {
    const ahead = new Set(this.#spares.flatMap(({ made: { imageDisks } }) => imageDisks.ahead));
    for (const id of ahead) if (!(await isImageThere(id, this.#context.parts))) return false;
    return true;
  }

  async #isThereTemplate(): Promise<boolean> {
    const { nominal } = this.#order.size;
    return nominal !== undefined && (await this.#context.parts.driver.hasTemplate({ ...nominal, hasNic: true }));
  }

  /** Removes a machine that died while it waited. */
  async #lose(spare: Spare): Promise<void> {
    if (!this.#spares.includes(spare)) return;
    this.#spares = this.#spares.filter((other) => other !== spare);
    this.#wake.resolve();
    await this.#throwAway(spare);
  }

  /** Also waits for machines that are being discarded already: a caller needs their memory. */
  async #drain(why: string, keep = 0): Promise<void> {
    const spares = this.#spares.splice(0, Math.max(0, this.#spares.length - keep)); // the oldest
    const before = this.#discarding;
    if (spares.length > 0) this.#discarding = this.#discard(spares, why).then(() => before);
    await this.#discarding;
  }

  async #discard(spares: readonly Spare[], why: string): Promise<void> {
    this.#context.surroundings.log.info('spare machines discarded', { count: spares.length, why });
    for (const result of await Promise.allSettled(spares.map((spare) => this.#throwAway(spare)))) {
      if (result.status === 'rejected') {
        this.#context.surroundings.log.error('spare machine not removed', result.reason);
      }
    }
  }

  async #throwAway({ holdings }: Spare): Promise<void> {
    await this.#context.leftOvers.undo(() => holdings.end('removed'));
  }

  async #rest(ms: number): Promise<void> {
    const stop = new AbortController();
    await Promise.race([this.#wake.promise, delay(ms, undefined, { signal: stop.signal, ref: false }).catch(() => {})]);
    stop.abort();
  }
}
