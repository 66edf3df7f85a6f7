import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { isLocked, lockDirectory } from './lock.ts';
import type { Parts } from '../parts.ts';
import { isRunning, type ProcessIdentity } from '#host/process/process-identity.ts';
import { processesOf } from './processes.ts';
import { recordsIn, type AnyRecord } from './record.ts';
import { sweep } from './sweep.ts';

/** A running machine that no podvm serves. */
export interface Orphan {
  readonly sandboxId: string;
  /** Namespace of the pod; empty for a spare machine or one for a template. */
  readonly namespace: string;
  readonly name: string;
  /** Pid of its VMM. */
  readonly pid: number;
  /** RFC 3339. */
  readonly createdAt: string;
}

const rootOf = (stateDirectory: string) => join(stateDirectory, 'sandboxes');

/** Running machines of the state directory without a podvm. Changes nothing. Errors: `denied` without root. */
export async function findOrphans(stateDirectory: string): Promise<readonly Orphan[]> {
  const root = rootOf(stateDirectory);
  if (!(await isThere(root)) || (await isLocked(root))) return [];
  await access(root, constants.R_OK).catch((cause: unknown) => {
    throw new PodvmError('denied', `Cannot look for machines in ${root}: only root may`, {
      cause,
      fix: 'Run it as root, for instance with sudo.',
    });
  });
  return await orphansIn(root);
}

/** Ends them, and removes all traces of a killed podvm. Errors: `busy` when a podvm uses the directory. */
export async function endOrphans(
  stateDirectory: string,
  parts: { readonly network: Parts['network']; readonly driver: Pick<Parts['driver'], 'sweep'> },
  log: Log,
  signal: AbortSignal,
): Promise<readonly Orphan[]> {
  const root = rootOf(stateDirectory);
  if (!(await isThere(root))) return [];
  await using _lock = await lockDirectory(root);
  const found = await orphansIn(root);
  const swept = new Set(await sweep(root, parts, log, signal));
  return found.filter(({ sandboxId }) => swept.has(sandboxId));
}

async function orphansIn(root: string): Promise<readonly Orphan[]> {
  const orphans: Orphan[] = [];
  for await (const record of recordsIn(root)) {
    const machine = await machineOf(record);
    if (machine === undefined) continue;
    const { id: sandboxId, namespace, name, createdAt } = record;
    orphans.push({ sandboxId, namespace, name, pid: machine.pid, createdAt });
  }
  return orphans;
}

/** Its VMM, even if podvm was killed before it could record the pid. */
async function machineOf({ machine, uid, id }: AnyRecord): Promise<ProcessIdentity | undefined> {
  if (machine !== undefined && (await isRunning(machine))) return machine;
  return (await processesOf(uid, id))[0];
}
