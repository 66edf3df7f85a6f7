import { messageOf } from '#base/errors.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Engine } from '#engine/engine.ts';
import { tunDevice } from '../container/devices.ts';
import type { Disks } from '../volume/disks.ts';
import { ModuleRequests } from './module-requests.ts';
import { PodModules, type PodModulesParts } from './pod-modules.ts';

export interface DriversParts extends PodModulesParts {
  readonly engine: PodModulesParts['engine'] &
    ConstructorParameters<typeof ModuleRequests>[0] &
    Pick<Engine, 'changeMode'>;
  readonly disks: Pick<Disks, 'path'>;
  /** Loads a module of the initramfs. */
  readonly loadModule: (name: string) => boolean;
}

/** Permanent once written (module.sig_enforce, Documentation/admin-guide/kernel-parameters.txt). */
const signaturesOnly = '/sys/module/module/parameters/sig_enforce';
/** Modules that iptables-legacy loads with its own modprobe, not through a request of the kernel. */
const atOnce = ['ip_tables', 'ip6_tables'];

/**
 * Kernel modules while a pod runs. Containers load none: they are made without CAP_SYS_MODULE. In a pod with a container
 * that has CAP_NET_ADMIN, the kernel itself asks for missing modules (`ModuleRequests`), and gets those of the disk of
 * modules. A pod's kernel only loads modules that its makers have signed.
 */
export class Drivers {
  readonly #parts: DriversParts;
  #modules: PodModules | undefined;
  #loading: Promise<unknown> = Promise.resolve();

  constructor(parts: DriversParts) {
    this.#parts = parts;
  }

  /** `sealed` for a pod; a spare machine that waits for a pod stays open. */
  use(mode: 'sealed' | 'open'): void {
    if (mode === 'sealed') this.#parts.engine.writeExisting(signaturesOnly, '1');
  }

  /**
   * Loads the modules that a container needs before it is made. Reports a missing one and continues, since the
   * container may not need it.
   */
  async beforeContainer(
    { modulesDisk }: Pick<ContainerParams, 'modulesDisk'>,
    { hasOwnUsers }: { readonly hasOwnUsers: boolean },
  ): Promise<void> {
    if (modulesDisk === undefined) return;
    const { engine, warn } = this.#parts;
    try {
      this.#modules ??= this.#open(modulesDisk);
      if (!hasOwnUsers) return;
      await this.#modules.load('tun'); // its device is bound into the container, so it must exist
      engine.changeMode(tunDevice.path, tunDevice.fileMode);
    } catch (error) {
      warn(`kernel modules cannot be loaded on demand here: ${messageOf(error)}`);
    }
  }

  #open(disk: string): PodModules {
    const { engine, disks } = this.#parts;
    const modules = new PodModules(this.#parts, disks.path(disk));
    new ModuleRequests(engine, (name) => modules.load(name)).start();
    this.#loading = Promise.all(atOnce.map((name) => modules.load(name)));
    return modules;
  }

  /** Waits, before a container is started, for the modules that it must find. */
  async beforeStart(): Promise<void> {
    await this.#loading;
  }

  /** Reports a missing module and continues, since the pod may not need it. */
  load(name: string): void {
    try {
      this.#parts.loadModule(name);
    } catch (error) {
      this.#parts.warn(`features of the kernel module ${name} are not available: ${messageOf(error)}`);
    }
  }
}
