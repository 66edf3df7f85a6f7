import type { Assets } from '#host/assets.ts';
import type { Accelerator } from '../driver.ts';

export interface QemuDriverOptions {
  readonly assets: Pick<Assets, 'sysroot' | 'kernel' | 'initramfs'>;
  readonly accelerator: Accelerator;
  /** Directory of templates; absent: every machine boots. */
  readonly templates?: string;
  /** Told, once, that VMMs run without a cgroup of the host, and why. */
  readonly onUnconfined?: (why: string) => void;
  /** Told, once, that the host's kernel may not be told how ready it is to kill VMMs, and why. */
  readonly onUnprotected?: (why: string) => void;
  /** The host may write the memory of machines to its swap; default: it may not. */
  readonly maySwap?: boolean;
  /** What each machine may read, and as much that it may write, of each disk of the node; default: no limit. */
  readonly diskBytesPerSecond?: number | undefined;
  /** A VMM that the host does not bound is no machine. */
  readonly requiresCgroup?: boolean;
  /** Whether the guests' serial consoles are kept; default true. */
  readonly hasConsole?: boolean;
  /** More words for the guest's kernel command line. */
  readonly extraKernelArguments?: readonly string[];
}
