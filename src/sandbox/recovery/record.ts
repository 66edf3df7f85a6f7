import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { partVersionsSchema } from '#host/assets.ts';
import { readFileIfThere, replaceFile } from '#host/file/files.ts';
import { processIdentitySchema } from '#host/process/process-identity.ts';
import { requestsSchema } from '../figures/served-requests.ts';
import type { SandboxSpec } from '../sandbox.ts';
import { resourcesSchema, sandboxSpecSchema } from './spec-record.ts';

/** Newest version of the records of sandboxes. A process does not change records of a newer version. */
export const recordVersion = 4;

/**
 * Version of the record of a sandbox: that of the oldest builds that can take it over, since older ones leave it alone. 3: pods
 * of podvm itself; 4: containers without a pod.
 */
export function recordVersionOf({ keptFor, isSingle }: Pick<SandboxSpec, 'keptFor' | 'isSingle'>): 2 | 3 | 4 {
  if (isSingle === true) return 4;
  return keptFor === 'podvm' ? 3 : 2;
}

/** A started sandbox, for the process that takes it over. */
const podSchema = v.object({
  spec: sandboxSpecSchema,
  state: v.picklist(['ready', 'stopped', 'failed']),
  failure: v.exactOptional(v.string()),
  createdAt: v.string(),
  addresses: v.array(v.string()),
  phases: v.array(v.object({ name: v.string(), ms: v.number(), startMs: v.optional(v.number()) })),
  /** Whether the guest is known to have its network; absent in records of an older podvm, which waited for that. */
  isConnected: v.exactOptional(v.boolean(), true),
  accelerator: v.picklist(['kvm', 'tcg']),
  /** Current limits. */
  resources: resourcesSchema,
  warnings: v.array(v.string()),
  /** Images attached to its machine. */
  images: v.array(v.object({ id: v.string(), serial: v.string() })),
  /** Requests of its file servers that have ended, as far as they were read. */
  endedRequests: v.exactOptional(requestsSchema),
});
export type PodRecord = Readonly<v.InferOutput<typeof podSchema>>;

const identityEntries = {
  id: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,40}$/)),
  namespace: v.string(),
  name: v.string(),
  /** The pod's uid. */
  podUid: v.string(),
  /** The VMM's user. */
  uid: v.number(),
  /** The pod's cgroup, below which the machine's is. */
  cgroupParent: v.exactOptional(v.string()),
  createdAt: v.string(),
  /** Versions of the parts that its machine was made from; absent in records of an older podvm. */
  parts: v.optional(partVersionsSchema),
  machine: v.optional(
    v.object({
      driver: v.string(),
      id: v.string(),
      directory: v.string(),
      ...processIdentitySchema.entries,
      uid: v.number(),
      memoryMiB: v.optional(v.number(), 0),
    }),
  ),
};

/**
 * Record of a sandbox, with which a later process takes it over, or finds and ends what is left of it. Written before
 * anything is made (id, uid), again when the VMM runs, and at every change of a kept sandbox. The network and the
 * containers have records of their own, by the same id.
 */
const recordSchema = v.object({
  version: v.picklist([1, 2, 3, recordVersion]),
  ...identityEntries,
  /** Present in a sandbox that has started and outlives its process. */
  pod: v.exactOptional(podSchema),
});
export type SandboxRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** Fields of every version: enough to find a machine and to end it. */
const anyRecordSchema = v.object({ version: v.number(), ...identityEntries });
export type AnyRecord = Readonly<v.InferOutput<typeof anyRecordSchema>>;

const fileName = 'sandbox.json';

/**
 * A process that dies leaves the old record or the new one. A power cut may lose both, which is harmless because no
 * machine survives it.
 */
export async function writeRecord(directory: string, record: SandboxRecord): Promise<void> {
  await replaceFile(join(directory, fileName), `${JSON.stringify(record)}\n`);
}

/** Returns undefined when there is no record. Errors: `corrupt`; `unsupported` for a record of a newer podvm. */
export async function readRecord(directory: string): Promise<SandboxRecord | undefined> {
  const value = await readJson(directory);
  if (value === undefined) return undefined;
  const parsed = v.safeParse(recordSchema, value);
  if (parsed.success) return parsed.output;
  const any = v.safeParse(anyRecordSchema, value);
  if (any.success && any.output.version > recordVersion) throw newer(directory, any.output);
  throw corrupt(directory, parsed.issues[0].message);
}

/** Reads a record of any version; reconstructs a torn one from the directory. Errors: `corrupt`. */
export async function readAnyRecord(directory: string): Promise<AnyRecord | undefined> {
  const torn = await readTornRecord(directory);
  if (torn !== undefined) return torn;
  const value = await readJson(directory);
  if (value === undefined) return undefined;
  const parsed = v.safeParse(anyRecordSchema, value);
  if (parsed.success) return parsed.output;
  throw corrupt(directory, parsed.issues[0].message);
}

/** What a record of any version tells of its pod, as far as this podvm can read it. */
export async function readAnyPod(directory: string): Promise<PodRecord | undefined> {
  const parsed = v.safeParse(v.object({ pod: podSchema }), await readJson(directory));
  return parsed.success ? parsed.output.pod : undefined;
}

const ownerSchema = v.object({ pod: v.object({ spec: v.pick(sandboxSpecSchema, ['keptFor']) }) });

/** Who has made the pod of a record of any version; undefined if this podvm cannot read that. */
export async function readAnyOwner(directory: string): Promise<SandboxSpec['keptFor']> {
  const parsed = v.safeParse(ownerSchema, await readJson(directory));
  return parsed.success ? parsed.output.pod.spec.keptFor : undefined;
}

/**
 * Stands in for a record that a power cut left incomplete or empty. If its machine still runs, the group of its
 * directory is its user. Returns undefined when the record is complete or missing.
 */
export async function readTornRecord(directory: string): Promise<AnyRecord | undefined> {
  const text = await readFileIfThere(join(directory, fileName));
  try {
    if (text !== undefined) JSON.parse(text);
    return undefined;
  } catch {
    const { gid: uid } = await stat(join(directory, 'machine')).catch(() => ({ gid: -1 }));
    const whose = { namespace: '', name: '', podUid: '', createdAt: new Date(0).toISOString() };
    return { version: recordVersion, id: basename(directory), uid, ...whose };
  }
}

async function readJson(directory: string): Promise<unknown> {
  const text = await readFileIfThere(join(directory, fileName));
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch (cause) {
    throw corrupt(directory, cause);
  }
}

function corrupt(directory: string, cause: unknown): PodvmError {
  const path = join(directory, fileName);
  return new PodvmError('corrupt', `Cannot read the record of a sandbox: ${path} is damaged`, {
    cause,
    fix: 'Make sure that its machine has ended, then remove the directory of the record.',
  });
}

function newer(directory: string, { version, namespace, name }: AnyRecord): PodvmError {
  return new PodvmError(
    'unsupported',
    `Cannot take over ${namespace}/${name}: a newer podvm has written its record (version ${version}, this one reads ` +
      `${recordVersion}) in ${directory}`,
    { fix: leftFix(name) },
  );
}

/** What an operator can do about a machine that this podvm cannot take over. */
export const leftFix = (pod: string) => `Run the podvm that made it, or end the pod with \`podvm stop ${pod}\`.`;

/** The record of a kept sandbox. Changes are written one after the other. */
export class KeptRecord {
  readonly #directory: string;
  readonly #onTrouble: (error: unknown) => void;
  #record: SandboxRecord & { readonly pod: PodRecord };
  #last: Promise<void> = Promise.resolve();

  constructor(
    directory: string,
    record: SandboxRecord & { readonly pod: PodRecord },
    onTrouble: (error: unknown) => void,
  ) {
    this.#directory = directory;
    this.#record = record;
    this.#onTrouble = onTrouble;
  }

  /** Settles when all changes are written. */
  get saved(): Promise<void> {
    return this.#last;
  }

  /**
   * Settles when the change is written or has failed. After a failure the sandbox continues, and the next process knows
   * less about it.
   */
  change(pod: Partial<PodRecord>): Promise<void> {
    this.#record = { ...this.#record, pod: { ...this.#record.pod, ...pod } };
    this.#last = this.#last.then(() => writeRecord(this.#directory, this.#record)).catch(this.#onTrouble);
    return this.#last;
  }
}

/**
 * A sandbox's directory: `sandbox.json`, `containers/` (their records), `logs/`, `servers/` (logs of file servers),
 * `machine/` (all that its VMM sees). Disposing deletes it.
 */
export interface SandboxDirectory extends AsyncDisposable {
  readonly path: string;
  readonly machinePath: string;
}

/** An existing directory. */
export function sandboxDirectory(path: string): SandboxDirectory {
  const remove = () => rm(path, { recursive: true, force: true });
  return { path, machinePath: join(path, 'machine'), [Symbol.asyncDispose]: remove };
}

export async function makeSandboxDirectory(root: string, record: SandboxRecord): Promise<SandboxDirectory> {
  const directory = sandboxDirectory(join(root, record.id));
  const { path, machinePath } = directory;
  await mkdir(path, { mode: 0o711 }); // the VMM's user passes through to machine/ and cannot list anything
  try {
    await writeRecord(path, record);
    await mkdir(join(path, 'logs'), { mode: 0o750 });
    for (const name of ['containers', 'servers']) await mkdir(join(path, name), { mode: 0o700 });
    await mkdir(machinePath, { mode: 0o700 }); // the driver opens it to the VMM's user
  } catch (error) {
    await directory[Symbol.asyncDispose]();
    throw error;
  }
  return directory;
}

export async function sandboxDirectories(root: string): Promise<readonly string[]> {
  const entries = await readdir(root, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(root, entry.name));
}

/** The records below `root`, of any version, one at a time. A damaged one is left out: a sweep reports it. */
export async function* recordsIn(root: string): AsyncGenerator<AnyRecord> {
  for (const directory of await sandboxDirectories(root)) {
    const record = await readAnyRecord(directory).catch(() => undefined);
    if (record !== undefined) yield record;
  }
}
