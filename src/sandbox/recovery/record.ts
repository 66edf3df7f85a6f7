import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { partVersionsSchema } from '#host/assets.ts';
import { readFileIfThere, replaceFile } from '#host/files.ts';
import { resourcesSchema, sandboxSpecSchema } from './spec-record.ts';

/** Of the records of sandboxes and of their containers. A process leaves alone what a newer one has written. */
export const recordVersion = 2;

/** What a sandbox is that has started, for the process that takes it over. */
const podSchema = v.object({
  spec: sandboxSpecSchema,
  state: v.picklist(['ready', 'stopped', 'failed']),
  failure: v.exactOptional(v.string()),
  createdAt: v.string(),
  addresses: v.array(v.string()),
  phases: v.array(v.object({ name: v.string(), ms: v.number() })),
  accelerator: v.picklist(['kvm', 'tcg']),
  /** As they are now. */
  resources: resourcesSchema,
  warnings: v.array(v.string()),
  /** In its machine. */
  images: v.array(v.object({ id: v.string(), serial: v.string() })),
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
  createdAt: v.string(),
  /** What its machine is made of; absent in records of an older podvm. */
  parts: v.optional(partVersionsSchema),
  machine: v.optional(
    v.object({
      driver: v.string(),
      id: v.string(),
      directory: v.string(),
      pid: v.number(),
      startTicks: v.string(),
      uid: v.number(),
      memoryMiB: v.optional(v.number(), 0),
    }),
  ),
};

/**
 * What a later process must know of a sandbox to go on with it, or to find and end what is left of it. Written before
 * anything is made (id, uid), again when the VMM runs, and whenever something changes of a sandbox that is kept. The
 * network keeps its own record, by the same id, and so do containers.
 */
const recordSchema = v.object({
  version: v.picklist([1, recordVersion]),
  ...identityEntries,
  /** Of a sandbox that started and is to outlive its process. */
  pod: v.exactOptional(podSchema),
});
export type SandboxRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** What every version says: enough to find a machine and to end it. */
const anyRecordSchema = v.object({ version: v.number(), ...identityEntries });
export type AnyRecord = Readonly<v.InferOutput<typeof anyRecordSchema>>;

const fileName = 'sandbox.json';

/** A process's death leaves the old record or the new one; no machine survives a power cut, nor need its record. */
export async function writeRecord(directory: string, record: SandboxRecord): Promise<void> {
  await replaceFile(join(directory, fileName), `${JSON.stringify(record)}\n`);
}

/**
 * The record; undefined if there is none. Errors: `corrupt`; `unsupported` for one of a newer podvm.
 */
export async function readRecord(directory: string): Promise<SandboxRecord | undefined> {
  const value = await readJson(directory);
  if (value === undefined) return undefined;
  const parsed = v.safeParse(recordSchema, value);
  if (parsed.success) return parsed.output;
  const any = v.safeParse(anyRecordSchema, value);
  if (any.success && any.output.version > recordVersion) throw newer(directory, any.output);
  throw corrupt(directory, parsed.issues[0].message);
}

/** Of whatever version; of a torn one what the directory says. Errors: `corrupt`. */
export async function readAnyRecord(directory: string): Promise<AnyRecord | undefined> {
  const torn = await readTornRecord(directory);
  if (torn !== undefined) return torn;
  const value = await readJson(directory);
  if (value === undefined) return undefined;
  const parsed = v.safeParse(anyRecordSchema, value);
  if (parsed.success) return parsed.output;
  throw corrupt(directory, parsed.issues[0].message);
}

/**
 * A power cut may leave half a record, or none of it: no machine is left then, and if one is, its directory's group is its
 * user. Undefined: the record is whole, or not there.
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
    fix: 'Remove the directory of the record once no machine of it runs.',
  });
}

function newer(directory: string, { version, namespace, name }: AnyRecord): PodvmError {
  return new PodvmError(
    'unsupported',
    `Cannot take over ${namespace}/${name}: a newer podvm has written its record (version ${version}, this one reads ` +
      `${recordVersion}) in ${directory}`,
    { fix: 'Run that podvm again, or end the pod: stop this podvm, then `podvm stop --orphaned`.' },
  );
}

/** The record of a sandbox that is kept, as it changes. Changes are written one after the other. */
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

  /** Settles when it is written, or cannot be: the sandbox still goes on, and its next process knows less of it. */
  change(pod: Partial<PodRecord>): Promise<void> {
    this.#record = { ...this.#record, pod: { ...this.#record.pod, ...pod } };
    this.#last = this.#last.then(() => writeRecord(this.#directory, this.#record)).catch(this.#onTrouble);
    return this.#last;
  }
}

/**
 * A sandbox's own directory: `sandbox.json`, `containers/` (their records), `logs/`, `servers/` (what file servers say),
 * `machine/` (all that its VMM sees). Disposing deletes it.
 */
export interface SandboxDirectory extends AsyncDisposable {
  readonly path: string;
  readonly machinePath: string;
}

/** One that is there. */
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

/** The records below `root`, of whatever version, one at a time. A damaged one is left out: a sweep reports it. */
export async function* recordsIn(root: string): AsyncGenerator<AnyRecord> {
  for (const directory of await sandboxDirectories(root)) {
    const record = await readAnyRecord(directory).catch(() => undefined);
    if (record !== undefined) yield record;
  }
}
