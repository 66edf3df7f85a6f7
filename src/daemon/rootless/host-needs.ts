import { userInfo } from 'node:os';
import type { Finding } from '#api/finding.ts';
import { PodvmError } from '#base/errors.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { neededIds } from '#host/user-ids.ts';
import { missingHostTools, readHostTools } from '#setup/host-tools.ts';

/** Checks what the namespaces of this user need of the host, as far as a look at a few files tells. */
export async function hostNeeds(): Promise<readonly Finding[]> {
  const [username, uid] = [userName(), process.getuid?.() ?? 0];
  const ids = ['/etc/subuid', '/etc/subgid'].map(async (path) => {
    return await subordinateIds(path, [username, String(uid)]);
  });
  return [...(await programs()), ...(await Promise.all(ids))];
}

/** Name of this user; the id of a user without an entry in passwd(5). */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.());
  }
}

/** Errors: `failedPrecondition`, with the first thing that is missing. */
export async function requireHostNeeds(): Promise<void> {
  const lacking = (await hostNeeds()).find(({ status }) => status === 'fail');
  if (lacking === undefined) return;
  throw new PodvmError('failedPrecondition', `Cannot run pods as this user: ${lacking.name}: ${lacking.detail}`, {
    ...(lacking.fix === undefined
      ? {}
      : { fix: `${lacking.fix} \`podvm doctor\` checks all; or run the command as root.` }),
  });
}

async function programs(): Promise<readonly Finding[]> {
  const tools = (await readHostTools()).filter(({ forUsers }) => forUsers);
  const missing = await missingHostTools(tools);
  return tools.map((tool): Finding => {
    const { package: name, purpose } = tool;
    if (!missing.includes(tool)) return { name, status: 'ok', detail: purpose };
    const fix = `Run \`apt-get install --no-install-recommends ${name}\` as root.`;
    return { name, status: 'fail', detail: `missing: ${purpose}`, fix };
  });
}

async function subordinateIds(path: string, names: readonly string[]): Promise<Finding> {
  const name = path.slice('/etc/'.length);
  const count = firstCount((await readFileIfThere(path)) ?? '', names);
  if (count >= neededIds) return { name, status: 'ok', detail: `${count} subordinate ids` };
  const option = name === 'subuid' ? '--add-subuids' : '--add-subgids';
  return {
    name,
    status: 'fail',
    detail: `${path} has ${count === 0 ? 'no ids' : `${count} ids in its first range`} for ${names[0]}, not ${neededIds}`,
    fix: `Run \`usermod ${option} FIRST-LAST ${names[0]}\` as root, with 65,536 ids that no other line has.`,
  };
}

/** Number of ids in the first range of a user in subuid(5), which is the one that unshare takes. */
export function firstCount(text: string, names: readonly string[]): number {
  const line = text.split('\n').find((each) => names.includes(each.split(':')[0] ?? ''));
  return Number(line?.split(':')[2] ?? 0);
}
