import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { partVersionsSchema } from '#host/assets.ts';
import { readFileIfThere, writeFileAtomic } from '#host/files.ts';

/**
 * What a later process must know about a sandbox to find and end what is left of it. Written before anything is made
 * (id, uid), and again when the VMM runs. The network keeps its own record, by the same id.
 */
const recordSchema = v.object({
  version: v.literal(1),
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
});
export type SandboxRecord = Readonly<v.InferOutput<typeof recordSchema>>;

const fileName = 'sandbox.json';

export async function writeRecord(directory: string, record: SandboxRecord): Promise<void> {
  await writeFileAtomic(join(directory, fileName), `${JSON.stringify(record, null, 2)}\n`);
}

/** The record; undefined when there is none. Errors: `corrupt`. */
export async function readRecord(directory: string): Promise<SandboxRecord | undefined> {
  const text = await readFileIfThere(join(directory, fileName));
  if (text === undefined) return undefined;
  try {
    return v.parse(recordSchema, JSON.parse(text));
  } catch (cause) {
    throw new PodvmError('corrupt', `Cannot read the record of a sandbox: ${join(directory, fileName)} is damaged`, {
      cause,
    });
  }
}

/** A sandbox's directory: `sandbox.json`, `logs/`, `machine/` (all that its VMM sees). Disposing deletes it. */
export interface SandboxDirectory extends AsyncDisposable {
  readonly path: string;
  readonly machinePath: string;
}

export async function makeSandboxDirectory(root: string, record: SandboxRecord): Promise<SandboxDirectory> {
  const path = join(root, record.id);
  const machinePath = join(path, 'machine');
  const remove = () => rm(path, { recursive: true, force: true });
  await mkdir(path, { mode: 0o711 }); // the VMM's user passes through to machine/ and cannot list anything
  try {
    await writeRecord(path, record);
    await mkdir(join(path, 'logs'), { mode: 0o750 });
    await mkdir(machinePath, { mode: 0o700 }); // the driver opens it to the VMM's user
  } catch (error) {
    await remove();
    throw error;
  }
  return { path, machinePath, [Symbol.asyncDispose]: remove };
}

export async function sandboxDirectories(root: string): Promise<readonly string[]> {
  const entries = await readdir(root, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(root, entry.name));
}

/** The records below `root`, one at a time. A damaged one is left out: a sweep reports it. */
export async function* recordsIn(root: string): AsyncGenerator<SandboxRecord> {
  for (const directory of await sandboxDirectories(root)) {
    const record = await readRecord(directory).catch(() => undefined);
    if (record !== undefined) yield record;
  }
}
