import { readFile } from 'node:fs/promises';
import { allPids, identify, type ProcessIdentity, readProcessFile } from '#host/process-identity.ts';

/**
 * Processes of the user `uid` that have the sandbox's directory, identified by its random id, in their command line or
 * their mounts: a VMM whose starter was killed before it could record the pid. A name that a process merely sees, such as
 * that of a network namespace in /run/netns, does not count. Errors: those of `readProcessFile`, since a process that was
 * not looked up may be one.
 */
export async function processesOf(uid: number, sandboxId: string): Promise<readonly ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const pid of await allPids()) {
    const read = async (file: string) => (await readProcessFile(pid, file)) ?? '';
    if (!new RegExp(`^Uid:\\s${uid}\\s`, 'm').test(await read('status'))) continue;
    const command = await read('cmdline');
    const mounts = await read('mountinfo');
    const identity = await identify(pid);
    const isGiven =
      command.includes(sandboxId) || mountedPaths(mounts).some((path) => path.split('/').includes(sandboxId));
    if (identity !== undefined && isGiven) found.push(identity);
  }
  return found;
}

/** The mounted paths in their own file systems (field 4 of mountinfo, proc(5)). */
const mountedPaths = (mountinfo: string) => mountinfo.split('\n').map((line) => line.split(' ')[3] ?? '');

/** Proportional share of memory in `KiB`: shared pages are divided by their users. 0 when the process is gone. */
export async function pssKiB(pid: number): Promise<number> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+([0-9]+) kB/m.exec(rollup)?.[1] ?? 0);
}
