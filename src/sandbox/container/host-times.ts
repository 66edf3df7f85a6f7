import type { Surroundings } from '../parts.ts';

/** Converts times of a guest whose clock is right now, by the amount by which the host's date is set afterwards. */
export function hostTimes({ nowMs, monotonicNs }: Pick<Surroundings, 'nowMs' | 'monotonicNs'>) {
  const startMs = () => nowMs() - Number(monotonicNs() / 1_000_000n);
  const before = startMs();
  return (guestMs: number): number => guestMs + startMs() - before;
}
