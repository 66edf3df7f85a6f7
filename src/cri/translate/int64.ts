import { PodvmError } from '#base/errors.ts';

/** CRI's times: nanoseconds since 1970; `0`: never. */
export function nanosecondsOf(time: Date | undefined): bigint {
  return time === undefined ? 0n : BigInt(time.getTime()) * 1_000_000n;
}

/** A count of ours as a message that can be absent. */
export const uint64Of = (value: number) => ({ value: BigInt(Math.max(0, Math.round(value))) });

/** An int64 of CRI's as a number. Errors: `invalid` outside of `min` to `max`. */
export function numberOf(what: string, value: bigint, [min, max]: readonly [number, number]): number {
  if (value >= BigInt(min) && value <= BigInt(max)) return Number(value);
  throw new PodvmError('invalid', `Cannot use ${what}: it must be from ${min} to ${max}, got ${value}`);
}
