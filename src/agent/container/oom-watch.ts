import { open } from '#engine/constants.ts';
import { codeOf, ready, type Engine } from '#engine/engine.ts';
import { cgroupRoot, type Cgroups } from './cgroups.ts';

export interface OomWatchParts {
  readonly engine: Engine;
  readonly cgroups: Cgroups;
}

/** Counts the processes of a container that the kernel kills for lack of memory. */
export class OomWatch {
  readonly #parts: OomWatchParts;
  readonly #cgroup: string;
  readonly #onKill: () => void;
  #fd = -1;
  #kills = 0;

  /** Makes the kernel kill all processes of the container together, as a kubelet does on cgroup v2. */
  constructor(parts: OomWatchParts, cgroup: string, onKill: () => void) {
    this.#parts = parts;
    this.#cgroup = cgroup;
    this.#onKill = onKill;
    const directory = cgroupRoot + cgroup;
    try {
      parts.engine.writeExisting(`${directory}/memory.oom.group`, '1');
      this.#await(`${directory}/memory.events`);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error; // a container that has already ended has no cgroup to watch
    }
  }

  get hasKilled(): boolean {
    return this.#kills > 0;
  }

  /** Calls `onKill` if there were more kills since the last call. */
  look(): void {
    const kills = this.#parts.cgroups.oomKills(this.#cgroup);
    if (kills > this.#kills) this.#onKill();
    this.#kills = Math.max(kills, this.#kills);
  }

  close(): void {
    if (this.#fd >= 0) this.#parts.engine.close(this.#fd);
    this.#fd = -1;
  }

  /**
   * Waits for the next event with a new descriptor: the file polls as ready until its descriptor has been read from the
   * start after the last event (kernel, kernfs_generic_poll).
   */
  #await(file: string): void {
    const { engine } = this.#parts;
    const fd = engine.open(file, open.readOnly);
    this.#fd = fd;
    engine.read(fd, new Uint8Array(512));
    engine.watch(fd, ready.priority, () => {
      this.#fd = -1;
      engine.close(fd);
      if (engine.status(file) !== undefined) this.#await(file);
      this.look();
    });
  }
}
