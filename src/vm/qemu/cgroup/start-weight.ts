import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCgroup, moveAll, podvmCgroup, removeWhenEmpty } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import { limitCpu, type Version, weighPodvmCgroup } from './cgroup-version.ts';
import { restedFactor } from './processor-savings.ts';

/** That of a machine of a core that has rested: spares that are being made hardly delay it. */
const startShares = 1024 * restedFactor;

/**
 * The weight that a machine below a pod's cgroup has while it starts something: its processes are in podvm's own cgroup
 * of the processor, and in the pod's of all other hierarchies. A child's weight does not lift that of its parents, which
 * a kubelet gives 2 shares where no container has a CPU request; podvm's has those of all cores, for all starts. Does
 * nothing with cgroups version 2, whose only hierarchy counts the memory, too: what is used during a start would stay
 * with podvm.
 */
export class StartWeight {
  /** The machine's cgroup of the processor below podvm's. */
  readonly directory: string;
  readonly #version: Version;
  readonly #id: string;
  readonly #isPossible: boolean;
  #isSet: boolean;

  constructor(version: Version, id: string, isSet: boolean) {
    this.directory = join(version.cpu.root, podvmCgroup, id);
    this.#version = version;
    this.#id = id;
    this.#isPossible = version.cpu.root !== version.memory.root;
    this.#isSet = isSet && this.#isPossible;
  }

  get isSet(): boolean {
    return this.#isSet;
  }

  /** Makes the cgroup with the limit of the one below `parent`, if it is set. */
  async limit(parent: string): Promise<void> {
    if (!this.#isSet || parent === podvmCgroup) return;
    await makeCgroup(this.directory);
    await weighPodvmCgroup(this.#version);
    await limitCpu(this.#version, join(podvmCgroup, this.#id), { cpuMillis: undefined, cpuShares: startShares });
    const quota = 'cpu.cfs_quota_us';
    await writeFile(join(this.directory, quota), await readFile(join(this.#below(parent), quota), 'latin1'));
  }

  /** Moves all processes of the machine. A second call does what the first one failed to do. */
  async set(isSet: boolean, parent: string): Promise<void> {
    if (!this.#isPossible) return;
    this.#isSet = isSet;
    if (parent === podvmCgroup) return;
    if (isSet) {
      await this.limit(parent);
      await moveAll(this.#below(parent), this.directory);
    } else if (await isThere(this.directory)) {
      await moveAll(this.directory, this.#below(parent));
      await removeWhenEmpty(this.directory);
    }
  }

  #below(parent: string): string {
    return join(this.#version.cpu.root, parent, this.#id);
  }
}
