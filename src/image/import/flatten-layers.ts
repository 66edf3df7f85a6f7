import { PodvmError } from '#base/errors.ts';
import { assertRoom } from './disk-room.ts';
import { ImageBudget } from './image-budget.ts';
import { layerBytes, type OpenLayer } from './layer-stream.ts';
import { LayerTree } from './layer-tree.ts';
import type { ImageLimits } from '../limits.ts';
import { contentBytes, mergedTar } from './merged-tar.ts';
import { readTar, type TarEntry } from '../tar/tar-reader.ts';
import { layerFault } from './layer-fault.ts';
import { makeErofs, type MakeErofsOptions, type rootfsFile } from './make-erofs.ts';

export interface FlattenLayersOptions extends MakeErofsOptions {
  readonly limits: ImageLimits;
}

/**
 * Merges layers, lowest first, into one read-only EROFS file and returns its name. Layers are read twice: first all
 * headers, with every digest checked, into a tree; then the content of the files that remain, as one tar for mkfs.erofs.
 * Nothing is unpacked, and no other program sees a layer's headers. mkfs.erofs 1.8 can merge layers itself
 * (`--incremental --aufs`), but replaces symbolic links above directories, makes directories that no layer describes
 * world-writable, drops sparse files, does not support hard links to lower layers, and hangs on a truncated layer.
 * Errors: `corrupt` (digest, damaged or hostile tar), `exhausted` (limits, disk).
 */
export async function flattenLayers(
  layers: readonly OpenLayer[],
  options: FlattenLayersOptions,
): Promise<typeof rootfsFile> {
  const { limits, work } = options;
  const expanded = new ImageBudget(limits);
  const budget = new ImageBudget(limits); // holes of sparse files take no room in a layer, but do in the image
  const tree = new LayerTree(limits, budget);
  for (const [index, layer] of layers.entries()) {
    const fault = layerFault(index);
    let place = 0;
    for await (const member of readTar(layerBytes(layer, expanded, limits, fault), limits, fault)) {
      budget.spendBytes(member.size);
      tree.add(member, index, place, fault);
      place += 1;
    }
  }
  await assertRoom(work, contentBytes(tree.root, new ImageBudget(limits)), 'flatten the image');
  const again = (index: number): AsyncIterable<TarEntry> => {
    const layer = layers[index];
    if (layer === undefined) throw new PodvmError('internal', `Cannot flatten the image: it has no layer ${index}`);
    const fault = layerFault(index);
    return readTar(layerBytes(layer, new ImageBudget(limits), limits, fault), limits, fault);
  };
  return await makeErofs(mergedTar(tree.root, again, new ImageBudget(limits)), options);
}
