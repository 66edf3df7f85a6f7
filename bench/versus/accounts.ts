import { readdir, readFile } from 'node:fs/promises';
import { freemem } from 'node:os';
import { isThere } from '#host/file/files.ts';

/** Resources used by processes and the host, read from proc(5) and cgroups. */

const version1 = '/sys/fs/cgroup/cpuacct/cpuacct.usage';
const version2 = '/sys/fs/cgroup/cpu.stat';

/** Processor time of everything on the host so far, in `ms`. */
export async function hostCpuMs(): Promise<number> {
  if (await isThere(version1)) return Number(await readFile(version1, 'latin1')) / 1e6;
  const [, microseconds] = /^usage_usec (\d+)$/m.exec(await readFile(version2, 'latin1')) ?? [];
  return Number(microseconds) / 1e3;
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
}

async function processes(): Promise<readonly Process[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      try {
        const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
        const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return { pid, parent: Number(parent), command: await readFile(`/proc/${pid}/cmdline`, 'latin1') };
      } catch {
        return undefined; // it has ended meanwhile
      }
    }),
  );
  return found.filter((one) => one !== undefined);
}

/** Processes with one of the words in their command line, and all that descend from them. */
export async function familyOf(words: readonly string[]): Promise<readonly number[]> {
  const all = (await processes()).filter(({ pid }) => pid !== process.pid);
  const family = new Set(
    all.filter(({ command }) => words.some((word) => command.includes(word))).map(({ pid }) => pid),
  );
  for (let before = -1; before !== family.size;) {
    before = family.size;
    for (const { pid, parent } of all) if (family.has(parent)) family.add(pid);
  }
  return [...family];
}

/** Name of a process (proc(5), `comm`); '' for one that has ended. */
export const nameOf = async (pid: number): Promise<string> =>
  (await readFile(`/proc/${pid}/comm`, 'latin1').catch(() => '')).trimEnd();

/** Proportional memory of all of them, in `MB`. A process that ends meanwhile has none. */
export async function pssMB(pids: readonly number[]): Promise<number> {
  const sizes = await Promise.all(
    pids.map(async (pid) => {
      const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
      return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0);
    }),
  );
  return (sizes.reduce((sum, size) => sum + size, 0) * 1024) / 1e6;
}

/** Resident memory of a process, in `MB`; the part of it that no file has. */
export const residentMB = (pid: number): Promise<number> => statusMB(pid, /^VmRSS:\s+(\d+)/m);
export const anonymousMB = (pid: number): Promise<number> => statusMB(pid, /^RssAnon:\s+(\d+)/m);

async function statusMB(pid: number, line: RegExp): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'latin1');
  return (Number(line.exec(text)?.[1]) * 1024) / 1e6;
}

/** `MemAvailable`, in `MB`. */
export const availableMB = (): number => freemem() / 1e6;
