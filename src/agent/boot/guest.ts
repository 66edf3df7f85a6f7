import type { Phase } from '#base/phases.ts';

/** What the boot hands to the services. */
export interface Guest {
  /** Boot, phase by phase. */
  readonly phases: readonly Phase[];
  /** What went wrong in it, one line each; the guest came up all the same. */
  readonly failures: readonly string[];
  /** False: an ordinary process in a test; it ends when the channel does. */
  readonly isMachine: boolean;
  /** Sealed memfd of crun, for `spawn({ programFd })`; `undefined` if there is no crun. */
  readonly crunFd: number | undefined;
  /** Loads a kernel module with all it needs; false: this kernel has it built in, or not at all. */
  readonly loadModule: (name: string) => boolean;
}
