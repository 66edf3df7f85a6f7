import { readdir, readFile } from 'node:fs/promises';

/**
 * Processor time of a process and of all that descend from it, also of those that have ended, in `ms` (proc_pid_stat(5): a
 * parent gets the time of a child that it has waited for).
 */
export async function familyCpuMs(ancestor: number): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined)));
  const all = stats.flatMap((stat, at) => {
    if (stat === undefined) return []; // it has ended
    const fields = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const [, parent = 0] = fields;
    return [{ pid: Number(pids[at]), parent, ms: fields.slice(11, 15).reduce((sum, ticks) => sum + 10 * ticks, 0) }];
  });
  const family = new Set([ancestor]);
  for (let before = 0; before !== family.size;) {
    before = family.size;
    for (const { pid, parent } of all) if (family.has(parent)) family.add(pid);
  }
  return all.filter(({ pid }) => family.has(pid)).reduce((sum, { ms }) => sum + ms, 0);
}
