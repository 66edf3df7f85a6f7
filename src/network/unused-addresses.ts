import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '#host/file/files.ts';
import type { AttachmentRecords } from './attachment-record.ts';
import { bareAddress } from './ip/bare-address.ts';
import { interfaceName } from './lost-links.ts';

/**
 * Frees addresses in the directory of the plugin `host-local` whose sandbox is not known: a power cut may lose the record
 * and keep the address, or tear the file that names its user. Pods may be connected meanwhile. `known`: the ids of all
 * sandboxes that have an attachment or a record, now.
 */
export async function releaseAddresses(
  directory: string,
  attachments: AttachmentRecords,
  known: () => Promise<ReadonlySet<string>>,
): Promise<void> {
  // In this order: what uses an address was known before it had the address.
  const files = new Map<string, string>();
  for (const file of await readdir(directory).catch(() => [])) {
    // host-local keeps its lock and its last address in the same directory.
    if (/^[0-9a-f.:]+$/.test(file)) files.set(file, await textOf(join(directory, file)));
  }
  const ids = await known();
  const records = await Promise.all([...ids].map((sandboxId) => attachments.read(sandboxId)));
  const users = new Map(
    records.flatMap((record) =>
      (record?.added?.ips ?? []).map(({ address }) => [bareAddress(address), record?.sandboxId ?? ''] as const),
    ),
  );
  const isBeingMade = records.some((record) => record?.conflist !== undefined && record.added === undefined);
  for (const [file, text] of files) {
    const path = join(directory, file);
    const holder = text.split(/\s/)[0] ?? '';
    if (ids.has(holder) || (await textOf(path)) !== text) continue;
    const user = users.get(file);
    if (user !== undefined) await writeFileAtomic(path, `${user}\r\n${interfaceName}`); // it was torn
    else if (holder !== '' || !isBeingMade) await rm(path, { force: true });
  }
}

const textOf = async (path: string) => await readFile(path, 'utf8').catch(() => '');
