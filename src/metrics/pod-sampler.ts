import { messageOf } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Log } from '#host/log/log.ts';
import { within } from '#host/wait.ts';
import type { HostFigures } from '#sandbox/figures/host-figures.ts';
import type { SandboxMetrics } from '#sandbox/figures/sandbox-stats.ts';
import type { Sandbox, Sandboxes } from '#sandbox/sandbox.ts';

/** A guest's answer. */
export interface GuestSample {
  readonly metrics: SandboxMetrics;
  /** Its date, in `ms` since 1970. */
  readonly nowMs: number;
  /** Its time by the clock that measures durations. */
  readonly atMs: number;
}

/** Last measurements of one pod. */
export interface PodSample {
  readonly host: HostFigures | undefined;
  /** Undefined while the guest has not answered, or when its answer is too old to be shown. */
  readonly guest: GuestSample | undefined;
  readonly unanswered: number;
}

export interface SamplerTimes {
  /** Time between rounds. */
  readonly everyMs: number;
  /** Time in which a guest must answer. */
  readonly answerMs: number;
  /** Time for which a read waits while nothing is measured yet. */
  readonly firstMs: number;
  /** Age at which figures are no longer shown. */
  readonly oldestMs: number;
  /** Time without a read after which measuring ends. */
  readonly idleMs: number;
}

export const samplerTimes: SamplerTimes = {
  everyMs: 15_000,
  answerMs: 5_000,
  firstMs: 2_000,
  oldestMs: 60_000,
  idleMs: 120_000,
};

/** Limit of guests that are measured at a time, so that the node's other work continues. */
const atATime = 4;

interface Measured {
  host?: HostFigures;
  guest?: GuestSample;
  unanswered: number;
  isAsked: boolean;
}

/**
 * Measures pods in the background while there is a reader. A read returns the last measurements, so that a guest that
 * does not answer delays no other. Only the first read waits, briefly, for a first round.
 */
export class PodSampler implements Disposable {
  readonly #sandboxes: Pick<Sandboxes, 'list'>;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #times: SamplerTimes;
  readonly #onAnswer: (sandbox: Sandbox, guest: GuestSample) => void;
  readonly #measured = new Map<Sandbox, Measured>();
  readonly #closing = new AbortController();
  #lastReadMs = 0;
  /** Cancels the next round; undefined when none is planned. */
  #unplan: (() => void) | undefined;
  #round: Promise<void> | undefined;

  /** `onAnswer`: called with each answer of a guest. */
  constructor(
    sandboxes: Pick<Sandboxes, 'list'>,
    clock: Clock,
    log: Log,
    onAnswer: (sandbox: Sandbox, guest: GuestSample) => void,
    times: SamplerTimes = samplerTimes,
  ) {
    this.#onAnswer = onAnswer;
    this.#sandboxes = sandboxes;
    this.#clock = clock;
    this.#log = log;
    this.#times = times;
  }

  /** Returns the last measurements of each running pod. */
  async read(): Promise<ReadonlyMap<Sandbox, PodSample>> {
    this.#lastReadMs = this.#clock.monotonicMs();
    if (this.#unplan === undefined && !this.#closing.signal.aborted) {
      this.#begin();
      await within(this.#round ?? Promise.resolve(), { ms: this.#times.firstMs });
    }
    const now = this.#clock.monotonicMs();
    return new Map(
      this.#running().map((sandbox) => {
        const { host, guest, unanswered = 0 } = this.#measured.get(sandbox) ?? {};
        const isShown = guest !== undefined && now - guest.atMs <= this.#times.oldestMs;
        return [sandbox, { host, guest: isShown ? guest : undefined, unanswered }] as const;
      }),
    );
  }

  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#unplan?.();
  }

  #running(): readonly Sandbox[] {
    return this.#sandboxes.list().filter(({ status }) => status.state === 'ready');
  }

  /** Begins a round and plans the next. A guest that does not answer delays neither. */
  #begin(): void {
    this.#round = this.#measureAll();
    this.#unplan = this.#clock.after(this.#times.everyMs, () => {
      this.#unplan = undefined;
      if (this.#clock.monotonicMs() - this.#lastReadMs <= this.#times.idleMs) this.#begin();
      else this.#measured.clear();
    });
  }

  async #measureAll(): Promise<void> {
    const running = this.#running();
    for (const sandbox of this.#measured.keys()) if (!running.includes(sandbox)) this.#measured.delete(sandbox);
    const waiting = [...running];
    const next = async () => {
      for (let sandbox = waiting.shift(); sandbox !== undefined; sandbox = waiting.shift())
        await this.#measure(sandbox);
    };
    await Promise.all(Array.from({ length: atATime }, next));
  }

  /** Never rejects. A guest that has not answered the last request is not asked again, and one that is left alone never. */
  async #measure(sandbox: Sandbox): Promise<void> {
    if (sandbox.status.leftAlone !== undefined) return;
    const known = this.#measured.get(sandbox) ?? { unanswered: 0, isAsked: false };
    this.#measured.set(sandbox, known);
    if (known.isAsked) return;
    known.isAsked = true;
    using deadline = openDeadline(this.#times.answerMs, this.#closing.signal);
    try {
      await this.#askGuest(sandbox, known, deadline.signal);
      // Measured right after the guest's answer, so that both figures are of the same moment.
      const host = await sandbox.hostFigures(this.#closing.signal).catch(() => undefined);
      if (host !== undefined) known.host = host;
    } finally {
      known.isAsked = false;
    }
  }

  async #askGuest(sandbox: Sandbox, known: Measured, signal: AbortSignal): Promise<void> {
    try {
      const metrics = await sandbox.metrics(signal);
      const guest = { metrics, nowMs: this.#clock.now(), atMs: this.#clock.monotonicMs() };
      this.#onAnswer(sandbox, guest);
      known.guest = guest;
    } catch (error) {
      if (sandbox.state !== 'ready' || this.#closing.signal.aborted) return;
      known.unanswered += 1;
      this.#log.debug('pod not measured', { sandbox: sandbox.id, why: messageOf(error) });
    }
  }
}
