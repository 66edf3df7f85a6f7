import type { Image } from './images.ts';

/** Returns the space of these images on disk, in bytes: layers that they share count once. */
export function diskBytes(images: readonly Image[]): number {
  const layers = new Map(
    images.flatMap(({ layers: all = [] }) => all.map(({ digest, sizeBytes }) => [digest, sizeBytes])),
  );
  const own = images.map(({ sizeBytes, layers: all = [] }) =>
    all.reduce((left, layer) => left - layer.sizeBytes, sizeBytes),
  );
  return [...own, ...layers.values()].reduce((sum, bytes) => sum + bytes, 0);
}
