import { type GuestText, printable } from '#base/guest-text.ts';
import { type Phase, Phases } from '#base/phases.ts';

/** Times the steps of a start; steps side by side each have their own time. */
export interface PhaseClock {
  time<T>(name: string, step: Promise<T>): Promise<T>;
  /** Steps that somebody else has timed, in order. */
  add(prefix: string, steps: readonly { readonly name: GuestText | string; readonly ms: number }[]): void;
  /** In the order in which the steps ended, and at last the whole. */
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
