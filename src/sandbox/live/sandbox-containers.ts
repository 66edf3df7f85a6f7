import { PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import type { ContainerSite } from '../container/create-container.ts';
import { GuestContainer } from '../container/guest-container.ts';
import { logPathOf } from '../log/log-writer.ts';
import type { ContainerSpec } from '../sandbox.ts';

/** The containers of one sandbox, oldest first. They change only in the sandbox's inbox. */
export class SandboxContainers {
  readonly #site: ContainerSite;
  readonly #all: GuestContainer[];

  /** `before`: those of an earlier process. */
  constructor(site: ContainerSite, before: readonly GuestContainer[]) {
    this.#site = site;
    this.#all = [...before];
  }

  /** All containers, including removed ones, of which only a record may be left. */
  get all(): readonly GuestContainer[] {
    return this.#all;
  }

  byId(id: string): GuestContainer | undefined {
    return this.#all.find((container) => container.id === id);
  }

  /** Adds one that is to be created. Errors: `alreadyExists`, `exhausted`. */
  admit(spec: ContainerSpec): GuestContainer {
    const { limits, directory, surroundings } = this.#site;
    const same = this.#all.filter((container) => container.spec.name === spec.name);
    if (same.some((container) => container.spec.attempt === spec.attempt && !container.isRemoved)) {
      const what = `container ${spec.name} (attempt ${spec.attempt})`;
      throw new PodvmError('alreadyExists', `Cannot create ${what}: it exists already`);
    }
    const isFull = this.#all.length >= limits.maxContainers;
    for (const container of isFull ? [...this.#all] : same) if (container.isRemoved) this.forget(container);
    if (this.#all.length >= limits.maxContainers) {
      throw new PodvmError('exhausted', `Cannot create container ${spec.name}: ${limits.maxContainers} exist already`, {
        fix: 'Remove ended containers, or split the pod.',
      });
    }
    const id = Buffer.from(surroundings.randomBytes(16)).toString('hex');
    const container = new GuestContainer(id, spec, logPathOf(directory, spec), this.#site);
    this.#all.push(container);
    return container;
  }

  forget(container: GuestContainer): void {
    const at = this.#all.indexOf(container);
    if (at >= 0) this.#all.splice(at, 1);
  }

  lose(why: string): void {
    for (const container of this.#all) container.becomeLost(why);
  }

  /** Stops all at once; `hurry` cuts their grace short. Failures are only logged: the machine ends next. */
  async stop(graceMs: number, hurry: AbortSignal): Promise<void> {
    const { limits, log } = this.#site;
    await Promise.all(
      this.#all.map(async (container) => {
        try {
          if (!container.isMade) return;
          await container.stop(graceMs, hurry);
          await within(container.drained, { ms: limits.drainTimeoutMs });
        } catch (error) {
          log.error('container not stopped', error, { container: container.spec.name });
        }
      }),
    );
  }
}
