import { PodvmError } from '#base/errors.ts';
import { type Budget, type Layer, layerBytes, spend } from './layer-stream.ts';
import { LayerTree } from './layer-tree.ts';
import type { ImageLimits } from './limits.ts';
import { makeErofs, type MakeErofsOptions } from './make-erofs.ts';
import { mergedTar } from './merged-tar.ts';
import { brokenImageFix } from './oci.ts';
import type { Fault } from './tar-bytes.ts';
import { readTar, type TarEntry } from './tar-reader.ts';

export interface FlattenOptions extends MakeErofsOptions {
  readonly limits: ImageLimits;
}

/**
 * Merges layers, lowest first, into one read-only EROFS file and returns its path; the same layers give the same
 * bytes. Layers are read twice: first all headers, with every digest checked, into a tree; then the content of what
 * is left in it, as one tar that mkfs.erofs writes. Nothing is unpacked, and no other program sees a layer's headers:
 * mkfs.erofs 1.8 can add layers itself (`--incremental --aufs`), but puts directories in the place of symbolic links
 * above them, makes directories that no layer describes writable by all, drops sparse files, knows no hard link to a
 * lower layer, and waits for ever on a layer that is cut short.
 * Errors: `corrupt` (digest, damaged or hostile tar), `exhausted` (limits, disk), `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<string> {
  const { limits, signal } = options;
  const budget: Budget = { bytes: limits.maxImageBytes };
  const content: Budget = { bytes: limits.maxImageBytes }; // holes of sparse files cost nothing in a layer, much in the end
  const tree = new LayerTree(limits);
  for (const [index, layer] of layers.entries()) {
    let place = 0;
    for await (const member of readTar(
      layerBytes(layer, budget, limits, signal, faultOf(index)),
      limits,
      faultOf(index),
    )) {
      spend(content, member.size, limits);
      tree.add(member, index, place, faultOf(index));
      place += 1;
    }
  }
  const again = (index: number): AsyncIterable<TarEntry> => {
    const layer = layers[index];
    if (layer === undefined) throw new PodvmError('internal', `Cannot flatten the image: it has no layer ${index}`);
    const bytes = layerBytes(layer, { bytes: limits.maxImageBytes }, limits, signal, faultOf(index));
    return readTar(bytes, limits, faultOf(index));
  };
  return await makeErofs(mergedTar(tree.root, again), options);
}

function faultOf(index: number): Fault {
  return (reason, cause) =>
    new PodvmError('corrupt', `Cannot use layer ${index + 1} of the image: ${reason}`, {
      ...(cause === undefined ? {} : { cause }),
      fix: brokenImageFix,
    });
}
