import { type GuestText, printable } from '#base/guest-text.ts';
import type { Phase } from '#base/phases.ts';
import { stepRecorder } from '#host/log/tracing.ts';

/** A step of a start. */
export interface StartPhase extends Phase {
  /** Time from the beginning of the start to that of the step, in `ms`; absent in records of older versions. */
  readonly startMs?: number | undefined;
}

/** Times the steps of a start; concurrent steps are timed separately. In traced work, each step is a span. */
export interface PhaseClock {
  time<T>(name: string, step: Promise<T>): Promise<T>;
  /** Adds steps that were timed elsewhere: they followed each other, and the last has just ended. */
  add(prefix: string, steps: readonly { readonly name: GuestText | string; readonly ms: number }[]): void;
  /** In the order in which the steps ended, with the total last. */
  timeline(): readonly StartPhase[];
  /** Ends the total. Steps that go on are still added. */
  end(): void;
  /** The same as fields of a log line. */
  fields(): Readonly<Record<string, number>>;
}

export function createPhases(monotonicNs: () => bigint): PhaseClock {
  const nowMs = () => Number(monotonicNs() / 1000n) / 1000;
  const start = nowMs();
  const rounded = (ms: number) => Math.round(ms * 100) / 100;
  const done: StartPhase[] = [];
  let endMs: number | undefined;
  const record = stepRecorder();
  const add = (name: string, fromMs: number, ms: number) => {
    done.push({ name, ms: rounded(ms), startMs: rounded(Math.max(0, fromMs - start)) });
    record?.(name, ms, nowMs() - fromMs - ms);
  };
  const timeline = () => [...done, { name: 'total', ms: rounded((endMs ?? nowMs()) - start), startMs: 0 }];
  return {
    async time(name, step) {
      const fromMs = nowMs();
      const result = await step;
      add(name, fromMs, nowMs() - fromMs);
      return result;
    },
    add(prefix, steps) {
      let fromMs = nowMs() - steps.reduce((sum, { ms }) => sum + ms, 0);
      for (const { name, ms } of steps) {
        add(`${prefix} ${printable(name)}`, fromMs, ms);
        fromMs += ms;
      }
    },
    timeline,
    end: () => void (endMs ??= nowMs()),
    fields: () => Object.fromEntries(timeline().map(({ name, ms }) => [name.replaceAll(' ', '_'), ms])),
  };
}
