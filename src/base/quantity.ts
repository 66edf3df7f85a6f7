/**
 * Kubernetes' quantities, exactly: a decimal number with a suffix (n u m k M G T P E, or Ki Mi Gi Ti Pi Ei) or an
 * exponent (e3, E-3). Source: k8s.io/apimachinery/pkg/api/resource/quantity.go.
 */
export interface Quantity {
  /** The value times 10^9, rounded up: Kubernetes keeps nothing smaller than nano. */
  readonly nano: bigint;
}

const syntax = /^([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?[0-9]{1,2}))?$/;
const decimalExponents: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const binarySuffixes = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
const maxTextChars = 64;
/** Larger values are limited to this, as Kubernetes does with 2^63 - 1. */
const maxNano = (2n ** 63n - 1n) * 10n ** 9n;

/** The quantity, or undefined when the text is not one. */
export function parseQuantity(text: string): Quantity | undefined {
  const match = text.length > maxTextChars ? null : syntax.exec(text);
  if (match === null) return undefined;
  const [, sign, digits = '', suffix, exponent] = match;
  const [whole = '', fraction = ''] = digits.split('.');
  const binary = binarySuffixes.indexOf(suffix ?? '');
  const power = exponent === undefined ? (decimalExponents[suffix ?? ''] ?? 0) : Number(exponent);
  const factor = binary < 0 ? 1n : 1024n ** BigInt(binary + 1);
  const scale = 9 + power - fraction.length; // value = digits * factor * 10^(scale - 9)
  const number = BigInt(whole + fraction || '0') * factor;
  const magnitude = scale >= 0 ? number * 10n ** BigInt(scale) : divideUp(number, 10n ** BigInt(-scale));
  const limited = magnitude > maxNano ? maxNano : magnitude;
  return { nano: sign === '-' ? -limited : limited };
}

const nanoPerUnit = 10n ** 9n;

/** Whole units (bytes, cores), rounded up; at most Number.MAX_SAFE_INTEGER. */
export function unitsOf(quantity: Quantity): number {
  return safeNumber(divideUp(quantity.nano, nanoPerUnit));
}

/** Thousandths (of a core), rounded up. */
export function millisOf(quantity: Quantity): number {
  return safeNumber(divideUp(quantity.nano, 10n ** 6n));
}

/** Divides the quantity by `divisor` and rounds up, as the downward API does. */
export function divideQuantity(quantity: Quantity, divisor: Quantity): bigint {
  return divideUp(quantity.nano, divisor.nano);
}

function divideUp(dividend: bigint, divisor: bigint): bigint {
  const quotient = dividend / divisor;
  return dividend % divisor > 0n ? quotient + 1n : quotient;
}

function safeNumber(value: bigint): number {
  const limit = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > limit ? limit : value < -limit ? -limit : value);
}
