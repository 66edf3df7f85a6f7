import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '#host/file/files.ts';
import type { AttachmentRecords } from './attachment-record.ts';
import { bareAddress } from './ip/bare-address.ts';
import { interfaceName } from './lost-links.ts';

/**
 * Frees addresses in the directory of the plugin `host-local` whose sandbox is not known: a power cut may lose the record
 * and keep the address, or tear the file that names its user.
 */
export async function releaseAddresses(
  directory: string,
  attachments: AttachmentRecords,
  known: ReadonlySet<string>,
): Promise<void> {
  const records = await Promise.all([...known].map((sandboxId) => attachments.read(sandboxId)));
  const users = new Map(
    records.flatMap((record) =>
      (record?.added?.ips ?? []).map(({ address }) => [bareAddress(address), record?.sandboxId ?? ''] as const),
    ),
  );
  const isBeingMade = records.some((record) => record?.conflist !== undefined && record.added === undefined);
  for (const file of await readdir(directory).catch(() => [])) {
    if (!/^[0-9a-f.:]+$/.test(file)) continue; // host-local keeps its lock and its last address in the same directory
    const path = join(directory, file);
    const holder = (await readFile(path, 'utf8').catch(() => '')).split(/\s/)[0] ?? '';
    if (known.has(holder)) continue;
    const user = users.get(file);
    if (user !== undefined) await writeFileAtomic(path, `${user}\r\n${interfaceName}`); // it was torn
    else if (holder !== '' || !isBeingMade) await rm(path, { force: true });
  }
}
