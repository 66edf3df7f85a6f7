import { codeOf, type Files, type Kernel } from '#engine/engine.ts';

type Parts = Pick<Files, 'readText'> & Pick<Kernel, 'loadModule'>;

interface KernelModule {
  readonly when: 'boot' | 'demand';
  readonly name: string;
  /** Path below `/lib/modules`. */
  readonly file: string;
  readonly needs: readonly string[];
}

const directory = '/lib/modules';
const maxListBytes = 256 * 1024;
const maxWordsBytes = 4096;

/**
 * The kernel modules of the initramfs. `/lib/modules/modules.list` has a line for each, in load order:
 * `boot|demand NAME FILE NEEDS`, where NEEDS are names joined by commas, or `-`.
 */
export class Modules {
  readonly #parts: Parts;
  readonly #known = new Map<string, KernelModule>();
  readonly #loaded = new Set<string>();
  readonly #kernelWords: readonly string[];

  /** Errors: a `SystemError` when the list is missing. */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#kernelWords = parts.readText('/proc/cmdline', maxWordsBytes).trim().split(' ');
    for (const line of parts.readText(`${directory}/modules.list`, maxListBytes).split('\n')) {
      const [when, name, file, needs = '-'] = line.split(' ');
      if ((when !== 'boot' && when !== 'demand') || name === undefined || file === undefined) continue;
      this.#known.set(name, { when, name, file, needs: needs === '-' ? [] : needs.split(',') });
    }
  }

  /** Names to load at boot, in order. */
  get bootNames(): readonly string[] {
    return [...this.#known.values()].filter(({ when }) => when === 'boot').map(({ name }) => name);
  }

  /** The kernel's arguments `NAME.PARAMETER`, which the kernel itself only gives to what is built in. */
  #parametersOf(name: string): string {
    const given = this.#kernelWords.filter((word) => word.startsWith(`${name}.`));
    return given.map((word) => word.slice(name.length + 1)).join(' ');
  }

  /**
   * Loads a module with its dependencies, unless it is loaded already. Returns false for a name that is not in the
   * list, which is assumed to be built into the kernel. Errors: the kernel's, as a `SystemError`.
   */
  load(name: string): boolean {
    const wanted = this.#known.get(name.replaceAll('-', '_')) ?? this.#known.get(name);
    if (wanted === undefined) return false;
    if (this.#loaded.has(wanted.name)) return true;
    this.#loaded.add(wanted.name); // before its dependencies, so that a circle in the list does not loop
    try {
      for (const needed of wanted.needs) this.load(needed);
      this.#parts.loadModule(`${directory}/${wanted.file}`, this.#parametersOf(wanted.name));
    } catch (error) {
      this.#loaded.delete(wanted.name);
      // ENODEV: the hardware that an accelerated variant (crc32c_intel) needs is missing.
      if (codeOf(error) !== 'ENODEV') throw error;
      return false;
    }
    return true;
  }
}
