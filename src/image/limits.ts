/** Limits on the use of this machine by a registry, an archive or a layer. Tests pass smaller ones. */
export interface ImageLimits {
  /** All layers of an image together, uncompressed, holes of sparse files filled; `bytes`. */
  readonly maxImageBytes: number;
  /** Members of all layers together, including whiteouts and directories that no layer describes. */
  readonly maxEntries: number;
  /** Uncompressed bytes of a layer per compressed byte, once the layer has `freeBytes`. */
  readonly maxRatio: number;
  /** Uncompressed size of a layer up to which any ratio is allowed; `bytes`. */
  readonly freeBytes: number;
  /** Names, targets of links and extended attributes of an image together; `bytes`. */
  readonly maxMetadataBytes: number;
  /** Components of paths and of links' targets that are followed for an image, and files that its whiteouts visit. */
  readonly maxPathSteps: number;
  /** Limits of the process that reads an image: memory in `bytes`, at most half of the node's, and time in `ms`. */
  readonly maxImportMemoryBytes: number;
  readonly maxImportMs: number;
  /** Extended headers of one member: long names, extended attributes; `bytes`. */
  readonly maxExtraBytes: number;
  /** One name in a directory, as in Linux file systems; `bytes`. */
  readonly maxNameBytes: number;
  /** Path of a member and target of a link, as PATH_MAX; `bytes`. */
  readonly maxPathBytes: number;
  /** Nesting of directories, and symbolic links followed for one member. */
  readonly maxDepth: number;
  readonly maxLinksFollowed: number;
  /** Names and values of one file's extended attributes together, as XATTR_LIST_MAX; `bytes`. */
  readonly maxXattrBytes: number;
  /** Members of a docker-archive or OCI archive, and all their names; `bytes`. */
  readonly maxArchiveMembers: number;
  readonly maxArchiveNameBytes: number;
  /** Nesting of indexes; two are usual. */
  readonly maxIndexDepth: number;
  /** Documents (indexes, manifests, configs) read to choose one image from an index, and their total `bytes`. */
  readonly maxIndexDocuments: number;
  readonly maxIndexBytes: number;
  /** Pieces of one sparse file. */
  readonly maxSparsePieces: number;
}

export const imageLimits: ImageLimits = {
  maxImageBytes: 32 * 1024 ** 3,
  maxEntries: 1_000_000,
  maxMetadataBytes: 256 * 1024 ** 2,
  maxPathSteps: 50_000_000,
  maxImportMemoryBytes: 4 * 1024 ** 3,
  maxImportMs: 30 * 60 * 1000,
  maxRatio: 100,
  freeBytes: 1024 ** 3,
  maxExtraBytes: 1024 ** 2,
  maxNameBytes: 255,
  maxPathBytes: 4095,
  maxDepth: 1000,
  maxLinksFollowed: 40,
  maxXattrBytes: 65_536,
  maxSparsePieces: 100_000,
  maxArchiveMembers: 10_000,
  maxArchiveNameBytes: 2 * 1024 ** 2,
  maxIndexDepth: 8,
  maxIndexDocuments: 64,
  maxIndexBytes: 16 * 1024 ** 2,
};
