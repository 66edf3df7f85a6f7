import * as v from 'valibot';
import type { ImageLimits } from '../limits.ts';
import { layerFilePattern, listFilePattern, rootfsFile } from './content-file.ts';

/**
 * A layer of a job. `blob`: its name below `layersDirectory`, or a descriptor. `hasFile`: whether its content goes into a file of its own.
 */
export interface BlobLayer {
  readonly diffId: string;
  readonly hasFile: boolean;
  readonly blob: string | number;
}

/** A layer whose file of that many blocks is stored. `members`: descriptor of the list of its members. */
export interface StoredLayer {
  readonly blocks: number;
  readonly members: number;
}

export type JobLayer = BlobLayer | StoredLayer;

/** What the importing process is to do; its descriptors from `firstFile` on are layers or the archive. */
export type ImportTask =
  | { readonly kind: 'flatten'; readonly layers: readonly JobLayer[] }
  | { readonly kind: 'unpack'; readonly path: string };

export type ImportJob = ImportTask & { readonly limits: ImageLimits };

export const firstFile = 3;
/** Directory of blobs that arrive during the work. */
export const layersDirectory = '/layers';

/** Error kinds that reading an image can report. */
const kinds = ['corrupt', 'exhausted', 'internal', 'invalid', 'unavailable'] as const;
const maxTextChars = 4096;
const maxTailLines = 8;
const text = v.pipe(v.string(), v.maxLength(maxTextChars));
const name = v.pipe(v.string(), v.maxLength(maxTextChars));
/** Member of an archive: a numbered name made here and nothing else, since it becomes a path. */
const file = v.pipe(v.string(), v.regex(/^member-\d{1,5}$/));

const digest = v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/));
const layer = v.object({
  at: v.pipe(v.number(), v.integer(), v.minValue(0)),
  file: v.pipe(v.string(), v.regex(layerFilePattern)),
  digest,
  members: v.object({ file: v.pipe(v.string(), v.regex(listFilePattern)), digest }),
});
const maxLayers = 100;

/** The answer, strictly checked: a process that has read hostile bytes may write anything. */
const answerSchema = v.union([
  v.object({
    flattened: v.literal(rootfsFile),
    digest,
    layers: v.pipe(v.array(layer), v.maxLength(maxLayers), v.readonly()),
  }),
  v.object({
    files: v.pipe(v.array(v.tuple([name, file])), v.maxLength(100_000)),
    links: v.pipe(v.array(v.tuple([name, name])), v.maxLength(100_000)),
  }),
  v.object({
    error: v.object({
      kind: v.picklist(kinds),
      message: text,
      fix: v.optional(text),
      cause: v.optional(text),
      tail: v.optional(v.pipe(v.array(text), v.maxLength(maxTailLines))),
      /** Whether it is a fault of what was stored of a layer. */
      isStored: v.optional(v.boolean()),
    }),
  }),
]);

export type ImportAnswer = v.InferOutput<typeof answerSchema>;
export type ImportFailure = Extract<ImportAnswer, { error: unknown }>['error'];
export type UnpackedArchive = Extract<ImportAnswer, { files: unknown }>;

/** Parses the output of the process; undefined when it is not an answer. */
export function readAnswer(said: string): ImportAnswer | undefined {
  try {
    const parsed = v.safeParse(answerSchema, JSON.parse(said));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined; // not JSON
  }
}

export function isReportedKind(kind: string): kind is ImportFailure['kind'] {
  return kinds.some((one) => one === kind);
}
