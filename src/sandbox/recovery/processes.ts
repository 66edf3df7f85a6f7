import { readdir, readFile } from 'node:fs/promises';
import { identify, type ProcessIdentity } from '#host/process-identity.ts';

/**
 * Processes of the user `uid` that are given a sandbox's directory, by its random id: in their command line, or as what
 * is mounted somewhere. Such is a VMM whose starter was killed before it could write down the pid. A name that is only
 * seen from a process, as that of a network namespace in /run/netns, makes it nobody's VMM.
 */
export async function processesOf(uid: number, sandboxId: string): Promise<readonly ProcessIdentity[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name)).map(Number);
  const found: ProcessIdentity[] = [];
  for (const pid of pids) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    if (!new RegExp(`^Uid:\\s${uid}\\s`, 'm').test(status)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
    const identity = await identify(pid);
    const isGiven =
      command.includes(sandboxId) || mountedPaths(mounts).some((path) => path.split('/').includes(sandboxId));
    if (identity !== undefined && isGiven) found.push(identity);
  }
  return found;
}

/** What is mounted, as a path in its own file system (field 4 of mountinfo, proc(5)). */
const mountedPaths = (mountinfo: string) => mountinfo.split('\n').map((line) => line.split(' ')[3] ?? '');

/** Proportional share of memory in `KiB`: shared pages counted by how many share them. 0 when the process is gone. */
export async function pssKiB(pid: number): Promise<number> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+([0-9]+) kB/m.exec(rollup)?.[1] ?? 0);
}
