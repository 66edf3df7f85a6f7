import { PodvmError } from '#base/errors.ts';
import type { ProcessPulse } from '#host/process/process-pulse.ts';

/** Limits on a guest's silence. */
export interface HeartbeatLimits {
  /** Interval at which all guests are checked, in `ms`. */
  readonly lookMs: number;
  /** Silence after which a guest is pinged, in `ms`. */
  readonly quietMs: number;
  /**
   * Time in which a guest whose process is not kept waiting must answer, in `ms`, counted from the check after the
   * ping.
   */
  readonly answerMs: number;
  /** Time in which any other guest must answer, in `ms`. */
  readonly patienceMs: number;
}

/** A hung guest is found after at most 26 s: 11 s until the ping, 5 s until the next check, and 10 s for two more. */
const heartbeatLimits: HeartbeatLimits = { lookMs: 5_000, quietMs: 6_000, answerMs: 9_000, patienceMs: 120_000 };

/** One guest, as the heartbeat sees it. */
export interface Watched {
  /** When the guest last sent a valid frame, in `ms` of `performance.now()`. */
  readonly heardMs: number;
  /** Whether it is frozen on purpose; absent: it is not. Its silence then means nothing. */
  readonly isFrozen?: () => boolean;
  /** Asks for an answer; called once for each silence. */
  readonly ping: () => void;
  /**
   * Reads the pulse of the process that runs the guest; undefined when the process has ended. Absent: the guest has
   * `patienceMs`.
   */
  readonly pulse?: () => Promise<ProcessPulse | undefined>;
  /** Called once, with the reason. */
  readonly giveUp: (error: PodvmError) => void;
}

/**
 * Time between the pings of two guests, in `ms`, unless that takes more than half of `lookMs` in all: guests that all wake at
 * once keep this process from a processor.
 */
const pingGapMs = 20;

interface Silence {
  /** `heardMs` of the guest when it was pinged. */
  readonly sinceMs: number;
  pulse: ProcessPulse | undefined;
  /** Time since the ping. */
  passedMs: number;
  /** The part of `passedMs` in which the guest could have answered. */
  countedMs: number;
  trouble: string;
}

/**
 * Finds guests that no longer answer, with one timer for all. Only a silent guest is pinged. On a busy host an answer
 * may take a minute, so the time to answer counts only as far as the guest's process was not kept waiting: a process
 * that waited for a processor four times as long as it ran has five times as long, and one that waits for a disk has
 * `patienceMs`.
 */
export class Heartbeat {
  readonly #limits: HeartbeatLimits;
  readonly #guests = new Map<Watched, Silence | undefined>();
  #timer: NodeJS.Timeout | undefined;
  #lookedMs = 0;
  #isLooking = false;

  constructor(limits: HeartbeatLimits = heartbeatLimits) {
    this.#limits = limits;
  }

  /** Watches the guest until the result is disposed. */
  watch(guest: Watched): Disposable {
    this.#guests.set(guest, undefined);
    this.#timer ??= setInterval(() => void this.#look(), this.#limits.lookMs).unref();
    return {
      [Symbol.dispose]: () => {
        this.#guests.delete(guest);
        if (this.#guests.size > 0) return;
        clearInterval(this.#timer);
        this.#timer = undefined;
      },
    };
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      await this.look(performance.now());
    } finally {
      this.#isLooking = false;
    }
  }

  /** Checks each guest once. */
  async look(nowMs: number): Promise<void> {
    // Limited, because this process has not read what guests sent while it could not run or was stopped.
    const passedMs = Math.min(nowMs - this.#lookedMs, this.#limits.lookMs);
    this.#lookedMs = nowMs;
    const before = new Map(this.#guests);
    const looking = [...this.#guests.keys()].map((guest) => this.#lookAt(guest, nowMs, passedMs));
    const silent = [...this.#guests].filter(
      ([guest, silence]) => silence !== undefined && silence !== before.get(guest),
    );
    this.#ping(silent.map(([guest]) => guest));
    await Promise.all(looking);
  }

  /** Pings guests that have fallen silent, one after another; no more those that were heard or are gone meanwhile. */
  #ping(guests: readonly Watched[]): void {
    const gapMs = Math.min(pingGapMs, this.#limits.lookMs / 2 / guests.length);
    for (const [at, guest] of guests.entries()) {
      const ping = () => {
        if (this.#guests.get(guest)?.sinceMs === guest.heardMs) guest.ping();
      };
      if (at === 0) ping();
      else setTimeout(ping, at * gapMs).unref();
    }
  }

  async #lookAt(guest: Watched, nowMs: number, passedMs: number): Promise<void> {
    const { quietMs, answerMs, patienceMs } = this.#limits;
    if (guest.isFrozen?.() === true) return void this.#guests.set(guest, undefined);
    const silence = this.#guests.get(guest);
    if (silence === undefined || silence.sinceMs !== guest.heardMs) {
      const isSilent = nowMs - guest.heardMs >= quietMs;
      const none = { pulse: undefined, passedMs: 0, countedMs: 0, trouble: '' };
      this.#guests.set(guest, isSilent ? { sinceMs: guest.heardMs, ...none } : undefined);
      return;
    }
    const pulse = await guest.pulse?.().catch(() => undefined);
    if (silence.pulse !== undefined && pulse !== undefined) {
      silence.countedMs += passedMs * chanceOf(silence.pulse, pulse);
      silence.trouble = troubleOf(silence.pulse, pulse, passedMs);
    }
    silence.pulse = pulse;
    silence.passedMs += passedMs;
    const silentMs = nowMs - silence.sinceMs;
    const isOver = silence.countedMs >= answerMs || silence.passedMs >= patienceMs;
    if (!isOver || guest.heardMs !== silence.sinceMs || !this.#guests.delete(guest)) return;
    const why = silence.trouble === '' ? '' : `: ${silence.trouble}`;
    guest.giveUp(new PodvmError('timeout', `the machine has not answered for ${Math.round(silentMs / 1000)} s${why}`));
  }
}

/** Part of the time between two pulses in which the process was not kept waiting, from 0 to 1. */
function chanceOf(before: ProcessPulse, now: ProcessPulse): number {
  if (now.isStopped) return 1;
  if (now.waitsForDisk) return 0;
  const [ran, waited] = [now.ranMs - before.ranMs, now.waitedMs - before.waitedMs];
  return ran + waited <= 0 ? 1 : Math.max(0, ran) / (ran + waited);
}

/** A process that uses less than this part of a processor is idle. */
const idlePart = 0.05;

function troubleOf(before: ProcessPulse, now: ProcessPulse, passedMs: number): string {
  if (now.isStopped) return 'its process is stopped';
  if (now.waitsForDisk) return 'its process waits for a disk';
  return now.ranMs - before.ranMs < idlePart * passedMs
    ? 'its guest does not run'
    : 'its guest is busy and does not answer';
}
