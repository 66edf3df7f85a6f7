import { codeOf, type Files } from '#engine/engine.ts';

type Parts = Pick<Files, 'setProject' | 'setProjectQuota' | 'projectUse'>;

/** A directory of a disk whose space the kernel counts. */
export interface Project {
  readonly device: string;
  readonly id: number;
}

export interface Space {
  readonly bytes: number;
  readonly inodes: number;
}

/**
 * Space of directories, counted and limited by ext4's project quotas, without walking trees. A limit does not apply to
 * processes with CAP_SYS_RESOURCE in the guest (quotactl(2)).
 */
export class Projects {
  readonly #parts: Parts;
  #last = 0; // 0 holds everything outside of projects

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Assigns an empty directory: everything made in it belongs to the same project. */
  assign(device: string, directory: string, limitBytes: number | undefined): Project {
    this.#last += 1;
    const id = this.#last;
    this.#parts.setProject(directory, id);
    if (limitBytes !== undefined) this.#parts.setProjectQuota(device, id, limitBytes);
    return { device, id };
  }

  /** Undefined once its disk is gone. */
  use({ device, id }: Project): Space | undefined {
    try {
      return this.#parts.projectUse(device, id);
    } catch (error) {
      if (['ENODEV', 'ENOENT', 'ENXIO', 'ESRCH'].includes(codeOf(error) ?? '')) return undefined;
      throw error;
    }
  }
}
