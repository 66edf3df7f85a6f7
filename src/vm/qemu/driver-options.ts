import type { Assets } from '#host/assets.ts';
import type { Accelerator } from '../driver.ts';

export interface QemuDriverOptions {
  readonly assets: Pick<Assets, 'sysroot' | 'kernel' | 'initramfs' | 'plugin'>;
  readonly accelerator: Accelerator;
  /** Directory of templates; absent: every machine boots. */
  readonly templates?: string;
  /** Called once, with the reason, when VMMs run without a host cgroup. */
  readonly onUnconfined?: (why: string) => void;
  /** Called once, with the reason, when the OOM score of VMMs cannot be set. */
  readonly onUnprotected?: (why: string) => void;
  /** Allows the host to swap the memory of machines; default: not allowed. */
  readonly maySwap?: boolean;
  /** Rate at which each machine may read from each disk of the node, and may write to it; default: no limit. */
  readonly diskBytesPerSecond?: number | undefined;
  /** Fails the start of a machine whose VMM the host cannot limit. */
  readonly requiresCgroup?: boolean;
  /** Storage of the guests' serial consoles. `memory`: only the end of each; default `file`. */
  readonly console?: 'file' | 'memory' | 'off';
}
