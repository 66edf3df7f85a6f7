import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';

const fileFacts = { inode: v.string(), mtimeNs: v.string() };

/** An image in its stored form. An older podvm drops `layers`, misses their bytes, and fetches the image again. */
export const imageSchema = v.object({
  id: v.string(),
  references: v.array(v.string()),
  digests: v.array(v.string()),
  sizeBytes: v.number(),
  layers: v.exactOptional(
    v.array(
      v.object({
        ...fileFacts,
        digest: v.string(),
        sizeBytes: v.number(),
        source: v.exactOptional(v.object({ members: v.string(), diffId: v.string(), blob: v.string() })),
      }),
    ),
  ),
  createdAt: v.string(),
  processorLevel: v.exactOptional(v.number()),
  config: v.object({
    entrypoint: v.exactOptional(v.array(v.string())),
    cmd: v.exactOptional(v.array(v.string())),
    env: v.exactOptional(v.array(v.string())),
    workingDir: v.exactOptional(v.string()),
    user: v.exactOptional(v.string()),
    stopSignal: v.exactOptional(v.string()),
    volumes: v.exactOptional(v.array(v.string())),
  }),
  rootfs: v.exactOptional(v.object({ ...fileFacts, digest: v.string(), head: v.string(), checkedAt: v.string() })),
  damaged: v.exactOptional(v.string()),
});
const versionSchema = v.object({ version: v.pipe(v.number(), v.integer(), v.minValue(2)) });

/** Errors: `failedPrecondition` for a newer version; the parsers' errors for damaged text. */
export function parseVersioned<S extends v.GenericSchema>(path: string, text: string, schema: S): v.InferOutput<S> {
  const json: unknown = JSON.parse(text);
  if (v.is(versionSchema, json)) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot read ${path}: a newer podvm wrote it, got version ${json.version}`,
      {
        fix: 'Use that version of podvm, or another state directory.',
      },
    );
  }
  return v.parse(schema, json);
}
