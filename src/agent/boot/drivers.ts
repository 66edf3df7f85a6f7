import { messageOf } from '#base/errors.ts';
import type { ContainerParams } from '#wire/messages.ts';
import type { Engine } from '#engine/engine.ts';
import type { Disks } from '../volume/disks.ts';
import { ModuleRequests } from './module-requests.ts';
import { PodModules, type PodModulesParts } from './pod-modules.ts';

export interface DriversParts extends PodModulesParts {
  readonly engine: PodModulesParts['engine'] &
    ConstructorParameters<typeof ModuleRequests>[0] &
    Pick<Engine, 'changeMode'>;
  readonly disks: Pick<Disks, 'path'>;
  /** From the initramfs. */
  readonly loadModule: (name: string) => boolean;
}

/** Written once, it stays (module.sig_enforce, Documentation/admin-guide/kernel-parameters.txt). */
const signaturesOnly = '/sys/module/module/parameters/sig_enforce';
/** What iptables-legacy would have a modprobe of its own load, and the kernel does not ask for. */
const atOnce = ['ip_tables', 'ip6_tables'];
/** The kernel loads what is behind it when it is opened (Documentation/admin-guide/devices.txt). */
export const tunDevice = { path: '/dev/net/tun', type: 'c', major: 10, minor: 200, fileMode: 0o666 } as const;

/**
 * Kernel modules while a pod runs. Containers load none: they are made without CAP_SYS_MODULE. For a pod of which one
 * has CAP_NET_ADMIN, the kernel itself asks for what it lacks (`ModuleRequests`), and gets what the disk of modules has.
 * In a pod's kernel nothing is loaded, by whatever way, that the makers of that kernel have not signed.
 */
export class Drivers {
  readonly #parts: DriversParts;
  #modules: PodModules | undefined;
  #loading: Promise<unknown> = Promise.resolve();

  constructor(parts: DriversParts) {
    this.#parts = parts;
  }

  /** `sealed` for a pod; a machine that is exercised for a pod to come stays open. */
  use(mode: 'sealed' | 'open'): void {
    if (mode === 'sealed') this.#parts.engine.writeExisting(signaturesOnly, '1');
  }

  /** Before a container is made. What it cannot have is told of, and it runs: it may do without. */
  async beforeContainer(
    { modulesDisk }: Pick<ContainerParams, 'modulesDisk'>,
    { hasOwnUsers }: { readonly hasOwnUsers: boolean },
  ): Promise<void> {
    if (modulesDisk === undefined) return;
    const { engine, warn } = this.#parts;
    try {
      this.#modules ??= this.#open(modulesDisk);
      if (!hasOwnUsers) return;
      await this.#modules.load('tun'); // its device is bound into the container, and must be there
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

  /** Before a container is started: what it must find there is there. */
  async beforeStart(): Promise<void> {
    await this.#loading;
  }

  /** A machine that cannot have it is told of, and runs: the pod may do without. */
  load(name: string): void {
    try {
      this.#parts.loadModule(name);
    } catch (error) {
      this.#parts.warn(`what needs the kernel module ${name} cannot be done here: ${messageOf(error)}`);
    }
  }
}
