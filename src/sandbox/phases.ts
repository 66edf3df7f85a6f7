import { type GuestText, printable } from '#base/guest-text.ts';
import { type Phase, Phases } from '#base/phases.ts';

/** Times the steps of a start; concurrent steps are timed separately. */
export interface PhaseClock {
  time<T>(name: string, step: Promise<T>): Promise<T>;
  /** Adds steps that were timed elsewhere, in order. */
  add(prefix: string, steps: readonly { readonly name: GuestText | string; readonly ms: number }[]): void;
  /** In the order in which the steps ended, with the total last. */
  timeline(): readonly Phase[];
  /** The same as fields of a log line. */
  fields(): Readonly<Record<string, number>>;
}

export function createPhases(monotonicNs: () => bigint): PhaseClock {
  const nowMs = () => Number(monotonicNs() / 1000n) / 1000;
  const start = nowMs();
  const phases = new Phases(nowMs);
  const timeline = () => [...phases.done, { name: 'total', ms: Math.round((nowMs() - start) * 100) / 100 }];
  return {
    time: (name, step) => phases.wait(name, () => step),
    add: (prefix, steps) => {
      for (const { name, ms } of steps) phases.add(`${prefix} ${printable(name)}`, ms);
    },
    timeline,
    fields: () => Object.fromEntries(timeline().map(({ name, ms }) => [name.replaceAll(' ', '_'), ms])),
  };
}
