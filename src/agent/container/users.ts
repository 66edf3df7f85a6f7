import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerProcess } from '#wire/container-params.ts';
import { open } from '#engine/constants.ts';
import { codeOf, type Beneath, type Descriptors, type Text } from '#engine/engine.ts';

type Parts = Pick<Beneath, 'openBeneath'> & Pick<Descriptors, 'read' | 'close'> & Pick<Text, 'decodeUtf8'>;

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** Sorted, with `gid`: a process that changes its group keeps what files deny that one (CVE-2022-36109). */
  readonly additionalGids: readonly number[];
  readonly home: string;
}

/** Limit of /etc/passwd and /etc/group in bytes; the rest is not read. */
const maxAccountsBytes = 1024 * 1024;
const maxId = 0xffff_fffe;

/**
 * Looks `user` up in the image as container runtimes do: a number need not be in /etc/passwd; without a group it is the
 * user's own, or 0; the image's /etc/group adds the groups that list the user. `root`: descriptor of the rootfs.
 * Errors: `failedPrecondition` for an unknown name, and for root with `requireNonRoot`.
 */
export function resolveUser(parts: Parts, root: number, process: ContainerProcess): ResolvedUser {
  const colon = process.user.indexOf(':');
  const userPart = colon < 0 ? process.user : process.user.slice(0, colon);
  const groupPart = colon < 0 ? '' : process.user.slice(colon + 1);
  const entry = findUser(readTable(parts, root, '/etc/passwd'), userPart);
  const uid = entry?.uid ?? idOf(userPart === '' ? '0' : userPart);
  if (uid === undefined) throw unknown('user', userPart);
  if (uid === 0 && process.requireNonRoot === true) {
    throw new PodvmError('failedPrecondition', 'Cannot run container: runAsNonRoot is set, and its user is root');
  }
  const groups = readTable(parts, root, '/etc/group');
  const gid = process.group ?? (groupPart === '' ? (entry?.gid ?? 0) : findGroup(groups, groupPart));
  if (gid === undefined) throw unknown('group', groupPart);
  const isStrict = process.supplementalGroupsPolicy === 'strict';
  const ofImage = entry === undefined || isStrict ? [] : groupsOf(groups, entry.name);
  const more = new Set([gid, ...process.supplementalGroups, ...ofImage]);
  if (process.fsGroup !== undefined) more.add(process.fsGroup);
  return { uid, gid, additionalGids: [...more].sort((a, b) => a - b), home: entry?.home ?? '/' };
}

function findUser(
  passwd: readonly string[][],
  user: string,
): { name: string; uid: number; gid: number; home: string } | undefined {
  const wanted = user === '' ? 0 : idOf(user);
  for (const [name = '', , uidText = '', gidText = '', , home = ''] of passwd) {
    const [uid, gid] = [idOf(uidText), idOf(gidText)];
    if (uid === undefined || gid === undefined) continue;
    if (name === user || uid === wanted) return { name, uid, gid, home: home.startsWith('/') ? home : '/' };
  }
  return undefined;
}

function findGroup(groups: readonly string[][], group: string): number | undefined {
  const entry = groups.find(([name]) => name === group);
  return idOf(entry?.[2] ?? group);
}

function groupsOf(groups: readonly string[][], user: string): number[] {
  const gids: number[] = [];
  for (const [, , gidText = '', members = ''] of groups) {
    const gid = idOf(gidText);
    if (gid !== undefined && gids.length < 1024 && members.split(',').includes(user)) gids.push(gid);
  }
  return gids;
}

function idOf(text: string): number | undefined {
  if (!/^\d{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= maxId ? id : undefined;
}

/** Lines of an account file as their fields; empty if the image has no such file. */
function readTable(parts: Parts, root: number, path: string): string[][] {
  let fd: number;
  try {
    fd = parts.openBeneath(root, path, open.readOnly | open.nonBlock);
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return [];
    throw error;
  }
  try {
    const bytes = new Uint8Array(16 * 1024);
    let text = '';
    for (let total = 0; total < maxAccountsBytes;) {
      const count = parts.read(fd, bytes);
      if (count <= 0) break;
      total += count;
      text += parts.decodeUtf8(bytes, 0, count);
    }
    return text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(':'));
  } finally {
    parts.close(fd);
  }
}

const unknown = (what: string, name: string) =>
  new PodvmError('failedPrecondition', `Cannot run container: the image has no ${what} ${printable(name)}`);
