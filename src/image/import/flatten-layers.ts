import assert from 'node:assert/strict';
import { ContentFile, type ImageFiles, rootfsFile } from './content-file.ts';
import { ImageBudget } from './image-budget.ts';
import { layerFault, storedLayerFault } from './layer-fault.ts';
import { layerBytes, type ComingLayer, type ListedLayer } from './layer-stream.ts';
import { LayerTree } from './layer-tree.ts';
import { listedMembers } from './member-list.ts';
import type { ImageLimits } from '../limits.ts';
import { ReadAhead } from './read-ahead.ts';
import { readTar } from '../tar/tar-reader.ts';
import { hasInlineEnd, writeErofs } from './write-erofs.ts';

export interface FlattenLayersOptions {
  readonly limits: ImageLimits;
  /** Directory in which the file is made. */
  readonly work: string;
}

/** Layers that are decompressed while an earlier one is read, and the bytes of each that may wait. */
const layersAhead = 2;
const aheadBytes = 16 * 1024 ** 2;

/**
 * Merges layers, lowest first, into one read-only EROFS file system, and returns its files: the image's own, and those of
 * layers that are to have one. Each layer is read once:
 * its digest is checked, its headers go into a tree, and the content of its files into the EROFS file at once. When all
 * are read, the tree is written behind the content. A layer that is stored
 * already is read from the list of its members. Nothing is unpacked, and no other program reads a layer. mkfs.erofs
 * 1.8 can merge layers (`--incremental --aufs`), but replaces symbolic links above directories, makes directories that no
 * layer describes world-writable, drops sparse files, does not support hard links to lower layers, and hangs on a
 * truncated layer; given one merged tar, it copies all content once more. Errors: `corrupt` (digest, damaged or hostile
 * tar), `exhausted` (limits, disk).
 */
export async function flattenLayers(
  layers: readonly (ComingLayer | ListedLayer)[],
  { limits, work }: FlattenLayersOptions,
): Promise<ImageFiles & { readonly flattened: typeof rootfsFile }> {
  const expanded = new ImageBudget(limits);
  const budget = new ImageBudget(limits); // holes of sparse files take no room in a layer, but do in the image
  const tree = new LayerTree(limits, budget);
  await using undo = new AsyncDisposableStack();
  const file = undo.use(await ContentFile.create(work));
  const ahead: ReadAhead[] = [];
  const left = [...layers.entries()].flatMap(([index, layer]) => ('members' in layer ? [] : [[index, layer] as const]));
  for (const [index, layer] of layers.entries()) {
    for (const [next, coming] of left.splice(0, 1 + layersAhead - ahead.length))
      ahead.push(undo.use(new ReadAhead(layerBytes(coming, expanded, limits, layerFault(next)), aheadBytes)));
    if ('members' in layer) {
      const fault = storedLayerFault(index);
      await file.startStored(layer.blocks);
      for await (const { member, block } of listedMembers(layer.members, layer.blocks, fault)) {
        budget.spendBytes(member.size);
        const leaf = tree.add(member, index, fault);
        if (leaf !== undefined && block !== undefined) leaf.content = file.stored(member.size, block);
      }
      continue;
    }
    const fault = layerFault(index);
    const bytes = ahead.shift();
    assert(bytes !== undefined);
    await file.startLayer(index, layer.hasFile);
    for await (const member of readTar(bytes, limits, fault)) {
      budget.spendBytes(member.size);
      const leaf = tree.add(member, index, fault);
      if (leaf !== undefined && member.size > 0)
        leaf.content = await file.add(member.content(), member.size, hasInlineEnd(leaf));
      await file.list(member, leaf?.content);
    }
  }
  return { flattened: rootfsFile, ...(await writeErofs(tree.root, file)) };
}
