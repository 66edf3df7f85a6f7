import { readProcessFigures } from '#host/process/process-figures.ts';
import { findTranslatedCode, residentBytes } from '#host/process/translated-code.ts';
import { messageOf } from '#base/errors.ts';
import type { Machine } from '#vm/driver.ts';
import type { Surroundings } from '../parts.ts';

/** What a VMM has used; undefined when it is gone. */
export interface Measured {
  cpuSeconds(): number | undefined;
  /** Memory of what it has translated, in bytes. */
  translatedBytes(): Promise<number>;
}

export interface RestTimes {
  /** Interval at which it is looked whether the machine rests, in `ms`. */
  readonly lookMs: number;
  /** Time for which a machine has to rest before the first time, in `ms`; doubled by each time, up to the maximum. */
  readonly restMs: number;
  readonly maxRestMs: number;
  /** Maximum part of a core that a machine at rest uses. Without work, a guest uses 0.65 % of one. */
  readonly maxUtilization: number;
  /** Least memory for which it is done, in bytes: a start takes 45 MiB, and commands in a container 25. */
  readonly leastBytes: number;
}

const restTimes: RestTimes = {
  lookMs: 15_000,
  restMs: 60_000,
  maxRestMs: 3_600_000,
  maxUtilization: 0.02,
  leastBytes: 32 * 1024 * 1024,
};

interface RestingParts {
  readonly machine: Pick<Machine, 'accelerator' | 'record' | 'discardTranslations'>;
  readonly surroundings: Pick<Surroundings, 'monotonicNs'> & { readonly log: Pick<Surroundings['log'], 'debug'> };
}

/**
 * Discards what the emulator of a machine at rest has translated, until it is disposed. That is half of the memory of an idle
 * pod: code of the guest's start and of containers being made, most of which it never needs again. What it does need is
 * translated again, so most pods pay for this once. One that works much, and rests in between, is left alone for longer and
 * longer.
 */
export function discardAtRest(
  { machine, surroundings }: RestingParts,
  measured: Measured = ofProcess(machine.record.pid),
  times: RestTimes = restTimes,
): Disposable {
  if (machine.accelerator !== 'tcg') return { [Symbol.dispose]: () => {} };
  let { restMs } = times;
  let [restedMs, lookedMs, cpuSeconds] = [0, nowMs(surroundings), measured.cpuSeconds()];
  const look = async () => {
    const [beforeMs, before] = [lookedMs, cpuSeconds];
    [lookedMs, cpuSeconds] = [nowMs(surroundings), measured.cpuSeconds()];
    const passedMs = lookedMs - beforeMs;
    if (cpuSeconds === undefined || before === undefined) return;
    const rests = (cpuSeconds - before) * 1000 <= times.maxUtilization * passedMs;
    restedMs = rests ? restedMs + passedMs : 0;
    if (restedMs < restMs) return;
    restedMs = 0; // also after too little, which is not measured at each look of a machine that rests for good
    if ((await measured.translatedBytes()) < times.leastBytes) return;
    await machine.discardTranslations();
    restMs = Math.min(2 * restMs, times.maxRestMs);
  };
  const onError = (error: unknown) => surroundings.log.debug('translations not discarded', { why: messageOf(error) });
  const timer = setInterval(() => void look().catch(onError), times.lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

const nowMs = ({ monotonicNs }: Pick<Surroundings, 'monotonicNs'>) => Number(monotonicNs() / 1_000_000n);

const ofProcess = (pid: number): Measured => ({
  cpuSeconds: () => readProcessFigures(pid)?.cpuSeconds,
  translatedBytes: async () => await residentBytes(pid, await findTranslatedCode(pid)),
});
