import { readFile } from 'node:fs/promises';
import { allPids, identify, type ProcessIdentity, readProcessFile } from '#host/process/process-identity.ts';

/**
 * Processes of the user `uid` that have the sandbox's directory, identified by its random id, in their command line or
 * their mounts: a VMM whose starter was killed before it could record the pid. So does a process of root that is about to
 * become that user in a jail with the directory. A name that a process merely sees, such as that of a network namespace in
 * /run/netns, does not count. Errors: those of `readProcessFile`, since a process that was not looked up may be one.
 */
export async function processesOf(uid: number, sandboxId: string): Promise<readonly ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const pid of await allPids()) {
    const read = async (file: string) => (await readProcessFile(pid, file)) ?? '';
    const owner = Number(/^Uid:\s(\d+)\s/m.exec(await read('status'))?.[1]);
    if (owner !== uid && owner !== 0) continue;
    const command = (await read('cmdline')).split('\0');
    const isNamed = command.some((word) => word.includes(sandboxId));
    const isGiven =
      owner === uid
        ? isNamed || mountedPaths(await read('mountinfo')).some((path) => path.split('/').includes(sandboxId))
        : isNamed && command.includes('bwrap');
    const identity = isGiven ? await identify(pid) : undefined;
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

/** The mounted paths in their own file systems (field 4 of mountinfo, proc(5)). */
const mountedPaths = (mountinfo: string) => mountinfo.split('\n').map((line) => line.split(' ')[3] ?? '');

/**
 * Proportional share of memory in `KiB`: shared pages are divided by their users. Without them where only root may know the
 * share: that of a VMM in the namespaces of an ordinary user. 0 when the process is gone.
 */
export async function pssKiB(pid: number): Promise<number> {
  const read = (file: string) => readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '');
  const share = /^Pss:\s+([0-9]+) kB/m.exec(await read('smaps_rollup'))?.[1];
  if (share !== undefined) return Number(share);
  const own = [...(await read('status')).matchAll(/^Rss(?:Anon|Shmem):\s+([0-9]+) kB/gm)];
  return own.reduce((sum, [, size]) => sum + Number(size), 0);
}
