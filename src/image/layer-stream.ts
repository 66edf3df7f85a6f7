import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { addAbortSignal } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { ImageLimits } from './limits.ts';
import type { Fault } from './tar-bytes.ts';
import { uncompressed } from './uncompressed.ts';

export interface Layer {
  /** Absolute path of the blob. */
  readonly path: string;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: string;
}

/** What is left of the bytes that all layers of an image may have. */
export interface Budget {
  bytes: number;
}

const chunkBytes = 256 * 1024;

/**
 * A layer's uncompressed bytes. Whoever reads to the end has their digest checked. Errors: `corrupt` (damaged, cut
 * short, another digest), `exhausted` (larger or more compressed than the limits), `cancelled`.
 */
export async function* layerBytes(
  layer: Layer,
  budget: Budget,
  limits: ImageLimits,
  signal: AbortSignal,
  fault: Fault,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  const stats = await stat(layer.path).catch((cause: unknown) => {
    throw fault('it is missing', cause);
  });
  if (!stats.isFile()) throw fault('it is no file'); // a pipe in somebody's layout would never end
  const most = Math.max(limits.freeBytes, stats.size * limits.maxRatio);
  let bytes = 0;
  const count = (more: number) => {
    bytes += more;
    if (bytes > most) throw bomb(limits);
  };
  const source = addAbortSignal(signal, createReadStream(layer.path, { highWaterMark: chunkBytes }));
  try {
    for await (const chunk of uncompressed(source, count)) {
      spend(budget, chunk.length, limits);
      hash.update(chunk);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof PodvmError) throw error;
    if (signal.aborted)
      throw new PodvmError('cancelled', 'Cannot flatten the image: cancelled', { cause: signal.reason });
    throw fault('it is damaged or cut short', error);
  }
  if (`sha256:${hash.digest('hex')}` !== layer.diffId) throw fault(`its content has not the digest ${layer.diffId}`);
}

/** Errors: `exhausted`. */
export function spend(budget: Budget, bytes: number, limits: ImageLimits): void {
  budget.bytes -= bytes;
  if (budget.bytes >= 0) return;
  throw new PodvmError(
    'exhausted',
    `Cannot flatten the image: uncompressed it has more than ${limits.maxImageBytes} bytes`,
    { fix: 'Use a smaller image.' },
  );
}

function bomb(limits: ImageLimits): PodvmError {
  return new PodvmError(
    'exhausted',
    `Cannot flatten the image: a layer is more than ${limits.maxRatio} times as large as what was sent of it`,
    { fix: 'Build the image without such a layer: it looks made to fill disks.' },
  );
}
