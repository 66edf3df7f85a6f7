import { PodvmError } from '#base/errors.ts';
import { unmountFlags } from '#engine/constants.ts';
import { codeOf, type Files, type Mounts, type Namespaces } from '#engine/engine.ts';

type Parts = Pick<Files, 'makeDirectories'> & Pick<Mounts, 'unmount'> & Pick<Namespaces, 'mountMapped'>;

const viewsRoot = '/run/podvm/mapped';

/**
 * Directories as the pod's users see them: files of the guest's root belong to the pod's root. A pod without a user
 * namespace sees them unchanged.
 */
export class MappedViews {
  readonly #parts: Parts;
  readonly #views = new Map<string, string>();
  #usersOf: number | undefined;
  #made = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Maps later views to the users of this process. */
  use(pid: number): void {
    this.#usersOf = pid;
  }

  /** Path of the directory's view. Errors: `failedPrecondition` for a file system that cannot map users. */
  of(path: string): string {
    if (this.#usersOf === undefined) return path;
    const known = this.#views.get(path);
    if (known !== undefined) return known;
    this.#made += 1;
    const view = `${viewsRoot}/${this.#made}`;
    this.#parts.makeDirectories(view);
    try {
      this.#parts.mountMapped(path, view, this.#usersOf);
    } catch (cause) {
      const why = codeOf(cause) === 'EINVAL' ? 'its file system cannot map users' : codeOf(cause);
      throw new PodvmError('failedPrecondition', `Cannot mount for a pod with a user namespace: ${why}`, { cause });
    }
    this.#views.set(path, view);
    return view;
  }

  /**
   * Drops a directory's view before the directory is removed, because a view keeps its file system. Users of the view
   * keep it.
   */
  drop(path: string): void {
    const view = this.#views.get(path);
    if (view === undefined) return;
    this.#views.delete(path);
    this.#parts.unmount(view, unmountFlags.detach);
  }
}
