import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { killProcess } from '#host/process-identity.ts';
import type { Log } from '#host/log.ts';
import { sweepFileServers } from '#storage/file-server.ts';
import type { Parts } from '../parts.ts';
import { processesOf } from './processes.ts';
import { readRecord, sandboxDirectories, type SandboxRecord } from './record.ts';

/**
 * Ends what a killed process left: VMMs, file servers, attachments (netns, tap, addresses) and directories. Returns the ids
 * that it cleaned. What cannot be cleaned is logged, and stays on record for the next start.
 */
export async function sweep(
  root: string,
  { network, driver }: { readonly network: Parts['network']; readonly driver: Pick<Parts['driver'], 'sweep'> },
  log: Log,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const swept: string[] = [];
  const stuck = new Set<string>();
  const directories = await sandboxDirectories(root);
  for (const directory of directories) {
    try {
      const record = await readRecord(directory);
      if (record !== undefined) await endMachine(record, log);
      for (const pid of await sweepFileServers(basename(directory))) {
        log.info('swept a file server', { sandbox: basename(directory), pid });
      }
      await driver.sweep(basename(directory));
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

async function endMachine(record: SandboxRecord, log: Log): Promise<void> {
  const recorded = record.machine === undefined ? [] : [record.machine];
  const found = await processesOf(record.uid, record.id);
  for (const identity of [...recorded, ...found]) {
    await killProcess(identity);
    log.info('swept a machine', { sandbox: record.id, pid: identity.pid });
  }
}
