import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** Bytes of an address in network order: 4 or 16. */
export interface Prefix {
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** `10.1.0.5/24`, `fd00::5/64`. Errors: `invalid`. */
export function parsePrefix(text: string): Prefix {
  const [address = '', lengthText] = text.split('/');
  const bytes = parseAddress(address);
  const length = Number(lengthText ?? bytes.length * 8);
  if (!Number.isInteger(length) || length < 0 || length > bytes.length * 8) throw bad(text);
  return { bytes, length };
}

/** Errors: `invalid`. */
export function parseAddress(text: string): Uint8Array {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): Uint8Array {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) throw bad(text);
  return new Uint8Array(parts.map(Number));
}

function parseIpv6(text: string): Uint8Array {
  const halves = text.split('::');
  if (halves.length > 2) throw bad(text);
  const [head = [], tail = []] = halves.map((half) => groups(half, text));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) throw bad(text);
  const words = [...head, ...Array.from({ length: missing }, () => 0), ...tail];
  return new Uint8Array(words.flatMap((word) => [word >> 8, word & 0xff]));
}

function groups(half: string, text: string): number[] {
  if (half === '') return [];
  return half.split(':').map((group) => {
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) throw bad(text);
    return Number.parseInt(group, 16);
  });
}

const bad = (text: string) =>
  new PodvmError('invalid', `Cannot use address ${printable(text)}: it is not an IP address`);
