import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { killProcess } from '#host/process/process-identity.ts';
import type { Log } from '#host/log/log.ts';
import { sweepFileServers } from '#storage/file-server.ts';
import type { Parts } from '../parts.ts';
import { processesOf } from './processes.ts';
import { readAnyRecord, sandboxDirectories, type AnyRecord } from './record.ts';

interface SweepParts {
  readonly network: Pick<Parts['network'], 'collect'>;
  readonly driver: Pick<Parts['driver'], 'sweep'>;
}

/**
 * Removes traces of earlier processes: VMMs, file servers, attachments (netns, tap, addresses) and directories. Returns
 * the ids that it cleaned. Failures are logged, and stay on record for the next start.
 */
export async function sweep(
  root: string,
  parts: SweepParts,
  log: Log,
  signal: AbortSignal,
): Promise<readonly string[]> {
  return await sweepDirectories(await sandboxDirectories(root), new Set(), parts, log, signal);
}

/** Sweeps the sandboxes in these directories, and attachments of all sandboxes except `kept`. */
export async function sweepDirectories(
  directories: readonly string[],
  kept: ReadonlySet<string>,
  { network, driver }: SweepParts,
  log: Log,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const swept: string[] = [];
  const stuck = new Set(kept);
  for (const directory of directories) {
    try {
      await endRemains(directory, driver, log);
    } catch (error) {
      stuck.add(basename(directory));
      log.error('sweep failed', error, { sandbox: basename(directory) });
    }
  }
  const attachments = await network.collect(stuck, signal); // after the VMMs, which hold the taps
  for (const id of attachments) log.info('swept an attachment', { sandbox: id });
  for (const directory of directories) {
    const id = basename(directory);
    if (stuck.has(id)) continue;
    await rm(directory, { recursive: true, force: true });
    swept.push(id);
    log.info('swept a sandbox', { sandbox: id });
  }
  return swept;
}

/** Ends the processes of a sandbox and releases what they use of the host. Its directory and attachment stay. */
export async function endRemains(directory: string, driver: SweepParts['driver'], log: Log): Promise<void> {
  const record = await readAnyRecord(directory);
  if (record !== undefined) await endMachine(record, log);
  for (const pid of await sweepFileServers(basename(directory))) {
    log.info('swept a file server', { sandbox: basename(directory), pid });
  }
  await driver.sweep(basename(directory), record?.cgroupParent);
}

async function endMachine(record: AnyRecord, log: Log): Promise<void> {
  const recorded = record.machine === undefined ? [] : [record.machine];
  const found = await processesOf(record.uid, record.id);
  for (const identity of [...recorded, ...found]) {
    await killProcess(identity);
    log.info('swept a machine', { sandbox: record.id, pid: identity.pid });
  }
}
