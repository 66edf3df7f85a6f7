import { createHash } from 'node:crypto';
import { createReadStream, fstatSync } from 'node:fs';
import { PodvmError } from '#base/errors.ts';
import type { ImageBudget } from './image-budget.ts';
import type { ImageLimits } from '../limits.ts';
import type { Fault } from '../tar/tar-bytes.ts';
import { uncompressed } from './uncompressed.ts';

/** A layer whose file is stored; it is read from the list of its members, an open descriptor. */
export interface ListedLayer {
  readonly members: number;
  readonly blocks: number;
}

/** A layer that is read when its blob is there. */
export interface ComingLayer {
  /** Waits for the blob, a regular file. */
  readonly open: () => Promise<AsyncDisposable & { readonly fd: number }>;
  /** Whether its content goes into a file of its own. */
  readonly hasFile: boolean;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: string;
}

const chunkBytes = 256 * 1024;

/**
 * A layer's uncompressed bytes. Reading to the end checks their digest. Errors: `corrupt` (damaged, cut short, digest
 * mismatch), `exhausted` (larger or more compressed than the limits).
 */
export async function* layerBytes(
  { open, diffId }: ComingLayer,
  budget: ImageBudget,
  limits: ImageLimits,
  fault: Fault,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  await using blob = await open();
  const { size } = fstatSync(blob.fd);
  const most = Math.max(limits.freeBytes, size * limits.maxRatio);
  let bytes = 0;
  const count = (more: number) => {
    bytes += more;
    if (bytes > most) throw bomb(limits);
  };
  const source = createReadStream('', { fd: blob.fd, autoClose: false, start: 0, highWaterMark: chunkBytes });
  try {
    for await (const chunk of uncompressed(source, count)) {
      budget.spendBytes(chunk.length);
      hash.update(chunk);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof PodvmError) throw error;
    throw fault('it is damaged or truncated', error);
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== diffId) throw fault(`digest mismatch: expected ${diffId}, got ${found}`);
}

function bomb(limits: ImageLimits): PodvmError {
  return new PodvmError(
    'exhausted',
    `Cannot flatten the image: a layer is more than ${limits.maxRatio} times as large as its compressed data`,
    { fix: 'Build the image without such a layer: it looks like a decompression bomb.' },
  );
}
