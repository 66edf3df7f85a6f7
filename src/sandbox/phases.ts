import { type GuestText, printable } from '#base/guest-text.ts';

/** Times the steps of a start; steps side by side each have their own time. */
export interface PhaseClock {
  time<T>(name: string, step: Promise<T>): Promise<T>;
  /** Steps that somebody else has timed, in order. */
  add(prefix: string, steps: readonly { readonly name: GuestText | string; readonly ms: number }[]): void;
  /** In the order in which the steps ended, and at last the whole. */
  timeline(): readonly { readonly name: string; readonly ms: number }[];
  /** The same as fields of a log line. */
  fields(): Readonly<Record<string, number>>;
}

export function createPhases(monotonicNs: () => bigint): PhaseClock {
  const start = monotonicNs();
  const done: { name: string; ms: number }[] = [];
  const msSince = (from: bigint) => Number((monotonicNs() - from) / 10_000n) / 100;
  const timeline = () => [...done, { name: 'total', ms: msSince(start) }];
  return {
    async time(name, step) {
      const from = monotonicNs();
      const result = await step;
      done.push({ name, ms: msSince(from) });
      return result;
    },
    add: (prefix, steps) => {
      for (const { name, ms } of steps)
        done.push({ name: `${prefix} ${printable(name)}`, ms: Math.round(ms * 100) / 100 });
    },
    timeline,
    fields: () => Object.fromEntries(timeline().map(({ name, ms }) => [name.replaceAll(' ', '_'), ms])),
  };
}
