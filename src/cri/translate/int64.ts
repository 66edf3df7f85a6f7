import { PodvmError } from '#base/errors.ts';

/** Converts to CRI's times: nanoseconds since 1970; `0`: never. */
export function nanosecondsOf(time: Date | undefined): bigint {
  return time === undefined ? 0n : BigInt(time.getTime()) * 1_000_000n;
}

/** Converts a count to an optional message. */
export const uint64Of = (value: number) => ({ value: BigInt(Math.max(0, Math.round(value))) });

/** Converts CRI's int64 to a number. Errors: `invalid` outside `min` to `max`. */
export function numberOf(what: string, value: bigint, [min, max]: readonly [number, number]): number {
  if (value >= BigInt(min) && value <= BigInt(max)) return Number(value);
  throw new PodvmError('invalid', `Cannot use ${what}: it must be from ${min} to ${max}, got ${value}`);
}
