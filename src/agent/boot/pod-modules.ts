import type { Asides, Files, Timers } from '#engine/engine.ts';
import { runAside } from '../process/aside.ts';
import type { Children } from '../process/children.ts';

export interface PodModulesParts {
  readonly engine: Pick<Files, 'readText'> & Pick<Asides, 'loadModuleAside'> & Pick<Timers, 'setTimer'>;
  readonly children: Pick<Children, 'wait'>;
  readonly warn: (text: string) => void;
}

const maxListBytes = 256 * 1024;

/**
 * The disk of modules: the only modules that a pod that administers its network can have loaded. Its `modules.list` has
 * a line `module NAME FILE NEEDS` for each, where NEEDS are the modules loaded before it, in order, joined by commas,
 * or `-`; and lines `alias ALIAS NAMES`. It is searched as text, because few of its 900 lines are ever used.
 */
export class PodModules {
  readonly #parts: PodModulesParts;
  readonly #directory: string;
  readonly #list: string;
  readonly #loading = new Map<string, Promise<boolean>>();

  /** Errors: a `SystemError` when the list is missing. */
  constructor(parts: PodModulesParts, directory: string) {
    this.#parts = parts;
    this.#directory = directory;
    this.#list = `\n${parts.engine.readText(`${directory}/modules.list`, maxListBytes)}`;
  }

  /**
   * Loads the module of that name or alias with its dependencies. Returns false if there is none or the kernel refuses
   * it.
   */
  async load(wanted: string): Promise<boolean> {
    if (!/^[!-~]{1,64}$/.test(wanted)) return false;
    const name = wanted.replaceAll('-', '_');
    const aliased = this.#line(`alias ${name} `)?.split(',') ?? [];
    const names = this.#line(`module ${name} `) === undefined ? aliased : [name];
    const loaded = await Promise.all(names.map((each) => this.#loadOnce(each)));
    return loaded.includes(true);
  }

  /** Returns the rest of the line that begins with `start`. */
  #line(start: string): string | undefined {
    const at = this.#list.indexOf(`\n${start}`);
    if (at < 0) return undefined;
    const from = at + 1 + start.length;
    return this.#list.slice(from, this.#list.indexOf('\n', from));
  }

  /** Concurrent calls for one module share its load; one that the kernel refused is tried again. */
  #loadOnce(name: string): Promise<boolean> {
    const before = this.#loading.get(name);
    if (before !== undefined) return before;
    const loading = this.#loadWithNeeds(name);
    this.#loading.set(name, loading);
    void loading.then((isLoaded) => {
      if (!isLoaded) this.#loading.delete(name);
    });
    return loading;
  }

  async #loadWithNeeds(name: string): Promise<boolean> {
    const [file, needs = '-'] = this.#line(`module ${name} `)?.split(' ') ?? [];
    if (file === undefined) return false;
    for (const needed of needs === '-' ? [] : needs.split(',')) {
      if (!(await this.#loadOnce(needed))) return false;
    }
    return await this.#insert(name, file);
  }

  async #insert(name: string, file: string): Promise<boolean> {
    const { engine, children, warn } = this.#parts;
    const code = await runAside(engine, children, () => engine.loadModuleAside(`${this.#directory}/${file}`));
    if (code !== 0) warn(`the kernel refuses the module ${name}: error ${code}`);
    return code === 0;
  }
}
