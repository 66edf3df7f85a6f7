import { type ErrorKind, kindOf } from '#base/errors.ts';
import type { Accelerator, Machine } from '#vm/driver.ts';
import type { Surroundings } from '../parts.ts';

/**
 * Time that a machine may have the weight of a start, in `ms`. What is used comes back ten times as slowly, so that
 * containers that are started in a loop have the weight a tenth of the time.
 */
export const maxWeighedMs = 60_000;
const regainFactor = 10;
/**
 * Time that it keeps the weight after a start, in `ms`: a kubelet starts the containers of a pod one after another. Emulated,
 * a program of some size needs seconds of processor time until it serves, which is as much a part of its start.
 */
export const lingerMs: Readonly<Record<Accelerator, number>> = { kvm: 1000, tcg: 10_000 };
/** Less than this of the time, in `ms`, is saved for a later start. */
const leastMs = 1000;
/** Errors of a machine that has ended, or is ending. */
const goneKinds: ReadonlySet<ErrorKind> = new Set(['unavailable', 'failedPrecondition']);
/** Time until a failed change is tried again, in `ms`. */
const retryMs = 1000;

interface WeighedParts {
  readonly machine: Pick<Machine, 'setStartWeight' | 'accelerator'>;
  readonly surroundings: Pick<Surroundings, 'monotonicNs'> & { readonly log: Pick<Surroundings['log'], 'error'> };
}

/**
 * Gives a machine the weight of a start (`Machine.setStartWeight`) while containers are made and started in it, and for a
 * moment after. Starts do not wait for it.
 */
export class WeighedStarts {
  readonly #live: WeighedParts;
  readonly #lingerMs: number;
  #isWeighed = true;
  #starts = 0;
  #keptUntilMs: number;
  /** Time left at `#countedMs`. */
  #leftMs = maxWeighedMs;
  #countedMs: number;
  #timer: NodeJS.Timeout | undefined;
  #hasEnded = false;
  /** Whether the last change failed, which is logged once: some of the processes may have the weight, and others not. */
  #hasFailed = false;
  /** The last change: a later one waits for it. */
  #changing: Promise<unknown> = Promise.resolve();

  /** `isNew`: the machine has the weight from the start of its sandbox; otherwise an earlier process may have left it. */
  constructor(live: WeighedParts, isNew: boolean) {
    this.#live = live;
    this.#lingerMs = lingerMs[live.machine.accelerator];
    this.#countedMs = this.#nowMs();
    this.#keptUntilMs = this.#countedMs + (isNew ? this.#lingerMs : 0);
    this.#look();
  }

  /** Errors: those of `start`. */
  async during<T>(start: () => Promise<T>): Promise<T> {
    this.#starts += 1;
    this.#look();
    try {
      return await start();
    } finally {
      this.#starts -= 1;
      this.#keptUntilMs = this.#nowMs() + this.#lingerMs;
      this.#look();
    }
  }

  /** The machine is no longer this process's. */
  end(): void {
    this.#hasEnded = true;
    clearTimeout(this.#timer);
  }

  /** Ends, and takes the weight from a machine that goes on: the next process may come late. Logs no error. */
  async leave(): Promise<void> {
    this.end();
    if (this.#isWeighed) this.#change(false);
    await this.#changing;
  }

  /** Changes the weight if it is not as it should be, and looks again when that ends. */
  #look(): void {
    clearTimeout(this.#timer);
    if (this.#hasEnded) return;
    this.#count();
    const keptMs = this.#keptMs();
    if (this.#hasFailed || this.#isWeighed !== keptMs > 0) this.#change(keptMs > 0);
    if (keptMs > 0) this.#lookAfter(keptMs);
  }

  /** Time for which the machine should have the weight from now on. */
  #keptMs(): number {
    if (!this.#isWeighed && this.#leftMs < leastMs) return 0;
    return this.#starts > 0 ? this.#leftMs : Math.min(this.#leftMs, this.#keptUntilMs - this.#countedMs);
  }

  #lookAfter(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), ms).unref();
  }

  #change(isWeighed: boolean): void {
    const { machine, surroundings } = this.#live;
    this.#isWeighed = isWeighed;
    this.#changing = this.#changing
      .then(async () => {
        await machine.setStartWeight(isWeighed);
        this.#hasFailed = false;
      })
      .catch((error: unknown) => {
        if (this.#hasEnded || goneKinds.has(kindOf(error))) return;
        if (!this.#hasFailed) surroundings.log.error('CPU weight not changed', error);
        this.#hasFailed = true;
        if (this.#isWeighed !== isWeighed) return; // changed again since
        this.#isWeighed = true;
        this.#lookAfter(retryMs);
      });
  }

  #count(): void {
    const nowMs = this.#nowMs();
    const passedMs = nowMs - this.#countedMs;
    this.#countedMs = nowMs;
    this.#leftMs = Math.min(maxWeighedMs, this.#leftMs + (this.#isWeighed ? -passedMs : passedMs / regainFactor));
  }

  #nowMs(): number {
    return Number(this.#live.surroundings.monotonicNs() / 1_000_000n);
  }
}
