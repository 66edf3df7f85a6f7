import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';

export const isVersion2 = await hasCgroups2();
const controllers = ['memory', 'pids', 'cpu', 'cpuacct'];
export const roots = isVersion2 ? ['/sys/fs/cgroup'] : controllers.map((name) => `/sys/fs/cgroup/${name}`);
export const memoryRoot = isVersion2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory';

/** A kubelet's cgroups on the host, with those of pods as it makes them. */
export class KubeletCgroups implements AsyncDisposable {
  readonly #made: string[] = [];

  async make(path: string): Promise<void> {
    const names = path.split('/');
    for (const root of roots) {
      for (const [at] of names.entries()) {
        const directory = join(root, ...names.slice(0, at + 1));
        if (await isThere(directory)) continue;
        await mkdir(directory);
        this.#made.push(directory);
        if (isVersion2) await writeFile(join(directory, '../cgroup.subtree_control'), '+memory +pids +cpu');
      }
    }
  }

  /** Fails if a runtime has left something in one of them. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const directory of this.#made.toReversed()) await rmdir(directory);
  }
}

/** Command lines of the processes in a cgroup. */
export async function processesIn(path: string): Promise<string[]> {
  const pids = (await readFile(join(memoryRoot, path, 'cgroup.procs'), 'latin1')).split('\n').filter(Boolean);
  return await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'latin1')));
}
