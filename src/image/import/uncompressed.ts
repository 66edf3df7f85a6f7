import { pipeline, Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { blockBytes } from '../tar/tar-bytes.ts';

/** Maximum nested compressions. */
const maxDepth = 3;
const chunkBytes = 256 * 1024;

/**
 * Decompresses the bytes of a layer. The compression is recognised by its first bytes, as in containerd: media types
 * can be wrong, and a copying tool that does not know a compression adds its own. `spend` is called with the bytes of
 * each decompression, and stops it by throwing. A tar, or an unknown format, is returned unchanged.
 */
export async function* uncompressed(
  source: AsyncIterable<Buffer>,
  spend: (bytes: number) => void,
  depth = maxDepth,
): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]();
  try {
    const { head, ended } = await headOf(chunks);
    const decoder = depth === 0 ? undefined : decoderFor(head);
    const all = rejoined(head, ended, chunks);
    if (decoder === undefined) yield* all;
    else {
      // An error of either reaches the reader of the decoder.
      const decoded = pipeline(Readable.from(all, { objectMode: true }), decoder, () => undefined);
      yield* uncompressed(counted(decoded, spend), spend, depth - 1);
    }
  } finally {
    await chunks.return?.();
  }
}

async function headOf(chunks: AsyncIterator<Buffer>): Promise<{ readonly head: Buffer; readonly ended: boolean }> {
  let head: Buffer = Buffer.alloc(0);
  while (head.length < blockBytes) {
    const { value, done } = await chunks.next();
    if (done === true) return { head, ended: true };
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  return { head, ended: false };
}

async function* rejoined(head: Buffer, ended: boolean, chunks: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  if (ended) return;
  for (;;) {
    const { value, done } = await chunks.next();
    if (done === true) return;
    yield value;
  }
}

async function* counted(chunks: AsyncIterable<Buffer>, spend: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    spend(chunk.length);
    yield chunk;
  }
}

function decoderFor(head: Buffer) {
  if (head.length < 4 || isTar(head)) return undefined;
  const magic = head.readUInt32LE(0);
  if ((magic & 0xff_ffff) === 0x08_8b1f) return createGunzip({ chunkSize: chunkBytes });
  // A frame, or a skippable one, as pzstd writes it (RFC 8878, 3.1.1 and 3.1.2).
  const isZstd = magic === 0xfd2f_b528 || (magic & 0xffff_fff0) >>> 0 === 0x184d_2a50;
  return isZstd ? createZstdDecompress({ chunkSize: chunkBytes }) : undefined;
}

/** A name in a tar may begin like a compressed file, but a tar header also has a checksum. */
function isTar(head: Buffer): boolean {
  const [at, width] = [148, 8];
  if (head.length < blockBytes) return false;
  const said = Number.parseInt(head.toString('latin1', at, at + width), 8);
  const block = Buffer.from(head.subarray(0, blockBytes)).fill(' ', at, at + width);
  return said === block.reduce((sum, byte) => sum + byte, 0);
}
