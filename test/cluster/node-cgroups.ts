import { mkdir, readdir, rmdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isThere } from '#host/file/files.ts';
import { hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';

const root = '/sys/fs/cgroup';
/** A node weighs as much as eight processes of the host; by default, all of its pods together weigh as much as one. */
const weights = { 'cpu.shares': '8192', 'cpu.weight': '800' } as const;

/** The cgroup of a node, in each hierarchy, below which its kubelet makes those of pods. */
export class NodeCgroups {
  /** From the root of a hierarchy. */
  readonly path: string;
  readonly directories: readonly string[];

  private constructor(path: string, directories: readonly string[]) {
    this.path = path;
    this.directories = directories;
  }

  static async make(path: string): Promise<NodeCgroups> {
    const hierarchies = (await hasCgroups2()) ? [root] : (await readdir(root)).map((name) => join(root, name));
    const directories: string[] = [];
    for (const hierarchy of hierarchies) {
      if (!(await isThere(join(hierarchy, 'cgroup.procs')))) continue;
      await mkdir(join(hierarchy, path));
      directories.push(join(hierarchy, path));
      for (const [name, weight] of Object.entries(weights)) {
        const file = join(hierarchy, path, name);
        if (await isThere(file)) await writeFile(file, weight);
      }
    }
    return new NodeCgroups(path, directories);
  }

  /** Those of version 1 whose hierarchies have one, as options of a mount. */
  get controllers(): readonly string[] {
    const names = this.directories.map((directory) => basename(dirname(directory)));
    return names.filter((name) => name !== 'systemd' && name !== 'unified');
  }

  /** Those of pods that are there. */
  async ofPods(): Promise<readonly string[]> {
    const found: string[] = [];
    for (const directory of this.directories) found.push(...(await below(directory)));
    return found.filter((path) => /\/pod[0-9a-f-]{36}/.test(path));
  }

  async remove(): Promise<void> {
    for (const directory of this.directories) {
      for (const path of [...(await below(directory)), directory]) await rmdir(path);
    }
  }
}

/** The deepest first. */
async function below(directory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(directory, entry.name);
    found.push(...(await below(path)), path);
  }
  return found;
}
