import type { Clock, Files } from '#engine/engine.ts';

type Parts = Pick<Clock, 'setTimer'> & Pick<Files, 'status' | 'list' | 'changeOwner' | 'changeMode'>;

const setGroupId = 0o2000;
/** Permissions that kubelet adds for the group (volume_linux.go): reading, writing and entering directories. */
const fileBits = 0o660;
const directoryBits = setGroupId | 0o770;
/** Entries handled before other work of the agent gets a turn. */
const entriesAtATime = 200;

/**
 * Gives a file system and its content to the pod's fsGroup, before any container sees it. Skips a file system whose
 * root belongs to the group already (Kubernetes' `OnRootMismatch`): the root is changed last, so that interrupted work
 * is done again.
 */
export async function giveToGroup(parts: Parts, root: string, group: number): Promise<void> {
  const before = parts.status(root);
  if (before === undefined || (before.gid === group && (before.mode & setGroupId) !== 0)) return;
  const directories = [root];
  let count = 0;
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    for (const name of parts.list(directory)) {
      const path = `${directory}/${name}`;
      const status = parts.status(path);
      if (status === undefined) continue;
      parts.changeOwner(path, -1, group);
      if (status.kind === 'directory') directories.push(path);
      if (status.kind !== 'symlink') {
        parts.changeMode(path, status.mode | (status.kind === 'directory' ? directoryBits : fileBits));
      }
      count += 1;
      if (count % entriesAtATime === 0) await pause(parts);
    }
  }
  parts.changeOwner(root, -1, group);
  parts.changeMode(root, before.mode | directoryBits);
}

function pause(parts: Pick<Clock, 'setTimer'>): Promise<void> {
  return new Promise((resolve) => {
    parts.setTimer(0, resolve);
  });
}
