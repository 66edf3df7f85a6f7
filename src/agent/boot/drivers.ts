import { messageOf } from '#base/errors.ts';
import type { Files } from '#engine/engine.ts';

export interface DriversParts {
  readonly engine: Pick<Files, 'writeExisting'>;
  readonly loadModule: (name: string) => boolean;
  readonly warn: (text: string) => void;
}

/** What the agent may be asked for while containers run: bridges for who administers networks, volumes of the host. */
const later = ['bridge', 'fuse'];

/**
 * Kernel modules while a pod runs. The kernel itself finds no modprobe (`mountEarly`), and a container without
 * CAP_SYS_MODULE can load none. Before one with it is made, the kernel is told to take no more until it ends: code in the
 * kernel is the shortest way to the devices of the VMM.
 */
export class Drivers {
  readonly #parts: DriversParts;
  #mode: 'sealed' | 'open' = 'open';
  #isSealed = false;

  constructor(parts: DriversParts) {
    this.#parts = parts;
  }

  /** `sealed` for a pod; a machine that is exercised for a pod to come stays open. */
  use(mode: 'sealed' | 'open'): void {
    this.#mode = mode;
  }

  beforeContainer(capabilities: readonly string[]): void {
    if (this.#isSealed) return;
    if (this.#mode === 'sealed' && capabilities.includes('CAP_SYS_MODULE')) {
      for (const name of later) this.load(name);
      // Documentation/admin-guide/sysctl/kernel.rst: "Once true, modules can be neither loaded nor unloaded".
      this.#parts.engine.writeExisting('/proc/sys/kernel/modules_disabled', '1');
      this.#isSealed = true;
    } else if (capabilities.includes('CAP_NET_ADMIN')) this.load('bridge');
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
