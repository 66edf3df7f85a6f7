import { blockBytes, type Fault, type TarBytes } from './tar-bytes.ts';
import { readNumber } from './tar-number.ts';

/** The parts of a sparse file that are in the archive, in order; the rest is zero. */
export interface SparseMap {
  /** Size of the whole file; `bytes`. */
  readonly size: number;
  readonly pieces: readonly (readonly [offset: number, length: number])[];
  /** Bytes of the member's data that the map itself took. */
  readonly mapBytes: number;
}

const zeros = Buffer.alloc(65_536);

/** Reads the map of GNU tar's own format: four pieces in the header at 386, then 21 in each further block. */
export async function readGnuSparse(
  header: Buffer,
  bytes: TarBytes,
  maxPieces: number,
  fault: Fault,
): Promise<SparseMap> {
  const pieces: (readonly [number, number])[] = [];
  const take = (block: Buffer, at: number, count: number) => {
    for (let i = 0; i < count; i += 1) {
      const start = at + i * 24;
      if (block[start] === 0) return;
      pieces.push([readNumber(block, start, 12, fault), readNumber(block, start + 12, 12, fault)]);
    }
    if (pieces.length > maxPieces) throw fault(`a sparse file has more than ${maxPieces} pieces`);
  };
  take(header, 386, 4);
  for (let isExtended = header[482] === 1; isExtended;) {
    const block = await bytes.exactly(blockBytes);
    take(block, 0, 21);
    isExtended = block[504] === 1;
  }
  return { size: readNumber(header, 483, 12, fault), pieces, mapBytes: 0 };
}

/** Reads the map of GNU's PAX format 1.0: decimal lines at the start of the data, padded to a block. */
export async function readPaxSparse(
  realSize: string | undefined,
  bytes: TarBytes,
  dataBytes: number,
  maxPieces: number,
  fault: Fault,
): Promise<SparseMap> {
  let text = '';
  let used = 0;
  const numbers: number[] = [];
  let wanted = 1;
  while (numbers.length < wanted) {
    if (used + blockBytes > dataBytes) throw fault('the map of a sparse file is truncated');
    text += (await bytes.exactly(blockBytes)).toString('latin1');
    used += blockBytes;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      if (numbers.length >= wanted) break; // padding of the last block
      numbers.push(wholeNumber(line, fault));
      wanted = 1 + 2 * (numbers[0] ?? 0);
      if (wanted > 1 + 2 * maxPieces) throw fault(`a sparse file has more than ${maxPieces} pieces`);
    }
  }
  const pieces = Array.from({ length: (wanted - 1) / 2 }, (_, i) => [at(numbers, 2 * i + 1), at(numbers, 2 * i + 2)]);
  return {
    size: wholeNumber(realSize ?? '', fault),
    pieces: pieces.map(([offset = 0, length = 0]) => [offset, length] as const),
    mapBytes: used,
  };
}

/** Errors: the fault, when pieces overlap, lie outside of the file, or differ in length from the data. */
export function checkSparse(map: SparseMap, dataBytes: number, fault: Fault): void {
  let end = 0;
  let sum = 0;
  for (const [offset, length] of map.pieces) {
    if (offset < end) throw fault('pieces of a sparse file overlap');
    end = offset + length;
    sum += length;
  }
  if (end > map.size || sum !== dataBytes) throw fault('the map of a sparse file does not fit its data');
}

/** Yields the whole content, holes filled. */
export async function* expandSparse(map: SparseMap, bytes: TarBytes): AsyncGenerator<Buffer> {
  let at = 0;
  for (const [offset, length] of map.pieces) {
    yield* zeroRun(offset - at);
    yield* bytes.run(length);
    at = offset + length;
  }
  yield* zeroRun(map.size - at);
}

function* zeroRun(count: number): Generator<Buffer> {
  for (let left = count; left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length));
}

function wholeNumber(text: string, fault: Fault): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw fault('the map of a sparse file is malformed');
  return value;
}

const at = (numbers: readonly number[], index: number) => numbers[index] ?? 0;
