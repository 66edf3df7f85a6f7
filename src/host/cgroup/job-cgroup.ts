import { readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isThere } from '../file/files.ts';
import {
  cgroupRoot as unified,
  handDown,
  hasCgroups2,
  makeCgroup,
  podvmCgroup as parent,
  removeWhenEmpty,
  weightOf,
} from './cgroup-tree.ts';

export interface JobLimits {
  readonly memoryBytes: number;
  /** CPU weight under contention; 1024 for a core. */
  readonly cpuShares: number;
  readonly processes: number;
}

/** The host cgroup of one job. Its programs are started in it and end before it is removed. */
export interface JobCgroup extends AsyncDisposable {
  /** Arguments before a command that start it in the cgroup. */
  readonly enter: readonly string[];
  /** Returns whether the kernel has killed a process in it for lack of memory. */
  wasOutOfMemory(): Promise<boolean>;
}

/** Files by resource; Documentation/admin-guide/cgroup-v2.rst and cgroup-v1. */
interface Version {
  readonly roots: readonly string[];
  readonly files: (limits: JobLimits) => readonly (readonly [root: string, file: string, value: string])[];
  readonly events: readonly [root: string, file: string];
  /** Files that not every kernel has, or not every delegated cgroup. */
  readonly optional: Version['files'];
}

const [memory, pids, cpu] = ['memory', 'pids', 'cpu'].map((name) => join(unified, name)) as [string, string, string]; // SAFE: three names

const versions: Readonly<Record<1 | 2, Version>> = {
  2: {
    roots: [unified],
    files: ({ memoryBytes, processes }) => [
      [unified, 'memory.max', String(memoryBytes)],
      [unified, 'pids.max', String(processes)],
    ],
    events: [unified, 'memory.events'],
    optional: ({ cpuShares }) => [
      [unified, 'cpu.weight', String(weightOf(cpuShares))],
      [unified, 'memory.swap.max', '0'],
      [unified, 'memory.oom.group', '1'],
    ],
  },
  1: {
    roots: [memory, pids, cpu],
    files: ({ memoryBytes, cpuShares, processes }) => [
      [memory, 'memory.limit_in_bytes', String(memoryBytes)],
      [cpu, 'cpu.shares', String(cpuShares)],
      [pids, 'pids.max', String(processes)],
    ],
    events: [memory, 'memory.oom_control'],
    optional: () => [[memory, 'memory.swappiness', '0']],
  },
};

let made = 0;

/** Makes the cgroup. `kind`: a word. Errors: the kernel's, if no cgroup is delegated. */
export async function makeJobCgroup(kind: string, limits: JobLimits): Promise<JobCgroup> {
  const version = versions[(await hasCgroups2()) ? 2 : 1];
  made += 1;
  const name = `${kind}-${process.pid}-${made}`;
  const at = (root: string, file: string) => join(root, parent, name, file);
  const directories = version.roots.map((root) => join(root, parent, name));
  await prepare(version);
  await sweep(version, kind);
  const remove = async () => {
    for (const directory of directories) await removeWhenEmpty(directory);
  };
  try {
    for (const directory of directories) await makeCgroup(directory);
    for (const [root, file, value] of version.files(limits)) await writeFile(at(root, file), value);
    for (const [root, file, value] of version.optional(limits)) await writeIfThere(at(root, file), value);
  } catch (error) {
    await remove();
    throw error;
  }
  const script = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"';
  return {
    // A shell enters the cgroup before it runs the program: a pid that is moved later may have children.
    enter: ['sh', '-euc', script, 'sh', ...directories.map((directory) => join(directory, 'cgroup.procs')), '--'],
    wasOutOfMemory: async () => {
      const text = await readFile(at(...version.events), 'latin1').catch(() => '');
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
    },
    [Symbol.asyncDispose]: remove,
  };
}

async function prepare({ roots }: Version): Promise<void> {
  for (const root of roots) await makeCgroup(join(root, parent));
  if (!roots.includes(unified)) return;
  for (const directory of [unified, join(unified, parent)]) await handDown(directory, ['memory', 'pids', 'cpu']);
}

/** Removes cgroups that killed podvm processes have left. The programs in them have died as well. */
async function sweep({ roots }: Version, kind: string): Promise<void> {
  for (const root of roots) {
    for (const name of await readdir(join(root, parent))) {
      const pid = new RegExp(`^${kind}-(\\d+)-\\d+$`).exec(name)?.[1];
      if (pid === undefined || (await isThere(`/proc/${pid}`))) continue;
      await rmdir(join(root, parent, name)).catch(() => undefined); // retried by the next sweep
    }
  }
}

async function writeIfThere(path: string, value: string): Promise<void> {
  if (await isThere(path)) await writeFile(path, value);
}
