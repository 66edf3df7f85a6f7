import * as v from 'valibot';
import { podDetailsSchema, podOutcomeSchema } from '#api/pods.ts';
import type { PodConfig, TerminalSize } from '#pod/pods.ts';
import { type Pod, podSchema } from '#pod/schema/objects.ts';

/** Everything needed to run a pod again. */
export interface PodSource extends Pick<PodConfig, 'configMaps' | 'secrets' | 'logins' | 'hasLostLogins' | 'network'> {
  /** The Pod of the manifest, under its present name. */
  readonly pod: Pod;
}

/** Options for the start of a pod. */
export interface StartOptions extends Pick<PodConfig, 'awaited'> {
  /** Keeps nothing of the pod after its end. */
  readonly removeAtEnd: boolean;
  /** `podvm apply` started it: it is started again when its machine fails. */
  readonly isApplied?: boolean;
  readonly terminalSize?: TerminalSize;
}

/** `source.json`: as `PodSource`, without the contents of Secrets, and without logins. */
export interface StoredSource extends PodSource {
  readonly hasSecrets: boolean;
}

/** The text of `source.json`. */
export function storedSource(source: PodSource): string {
  const { logins = [], ...rest } = source;
  const hasLostLogins = logins.length > 0 || source.hasLostLogins === true;
  return JSON.stringify({ ...rest, secrets: [], hasSecrets: source.secrets.length > 0, hasLostLogins });
}

/** `pod.json` in the directory of a pod: its state at its end, or at its start if podvm was killed in between. */
export const endedRecordSchema = v.object({
  version: v.literal(1),
  details: podDetailsSchema,
  ended: v.optional(v.object({ at: v.string(), ...podOutcomeSchema.entries })),
  /** Instances of containers whose logs were kept, the newest of each container last. */
  logs: v.array(v.object({ container: v.string(), attempt: v.number() })),
  /** Size of its files in bytes. */
  bytes: v.number(),
  /** While it is due to be started again: how often in a row its machine has failed. */
  failures: v.exactOptional(v.number()),
});
export type EndedRecord = v.InferOutput<typeof endedRecordSchema>;

const object = v.record(v.string(), v.unknown());
/** `source.json`, written by podvm and writable only by root. Its Pod has passed the schema of manifests. */
const sourceSchema = v.object({
  pod: v.looseObject({ metadata: v.looseObject({ name: v.string(), namespace: v.string() }), spec: object }),
  configMaps: v.array(object),
  secrets: v.pipe(v.array(object), v.maxLength(0)),
  hasSecrets: v.boolean(),
  hasLostLogins: v.exactOptional(v.boolean()), // records of earlier versions lack it
  network: v.picklist(['cni', 'none']),
});

/**
 * Fields that this version's schema has and the recording version's had not get their defaults, so that the pod is the
 * same as one that is read from its file now. Errors: valibot's and JSON's.
 */
export function parseSource(text: string): StoredSource {
  const source = v.parse(sourceSchema, JSON.parse(text));
  const pod = v.safeParse(podSchema, source.pod);
  // SAFE: the Pod passed the schema of manifests and JSON keeps all of it (read-manifests.ts relies on that, too)
  return { ...source, pod: pod.success ? pod.output : source.pod } as unknown as StoredSource;
}
