import type { Fault } from './tar-bytes.ts';

/** Reads a number of a tar header: octal text, or base 256 when the first bit is set. Errors: the fault. */
export function readNumber(block: Buffer, at: number, size: number, fault: Fault): number {
  const value = (block[at] ?? 0) & 0x80 ? base256(block, at, size) : octal(block, at, size);
  if (!Number.isSafeInteger(value)) throw fault('a number in a header is malformed');
  return value;
}

function octal(block: Buffer, at: number, size: number): number {
  const text = block.toString('latin1', at, at + size).replace(/^[ \0]+|[ \0].*$/gs, '');
  if (text === '') return 0;
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}

function base256(block: Buffer, at: number, size: number): number {
  const bytes = Buffer.from(block.subarray(at, at + size));
  const isNegative = ((bytes[0] ?? 0) & 0x40) !== 0;
  bytes[0] = isNegative ? 0xff : (bytes[0] ?? 0) & 0x7f;
  const bits = BigInt(`0x${bytes.toString('hex')}`);
  return Number(isNegative ? bits - (1n << BigInt(8 * size)) : bits);
}
