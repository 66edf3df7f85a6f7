import type { Phase } from '#base/phases.ts';

/** Results of the boot for the services. */
export interface Guest {
  /** Phases of the boot. */
  readonly phases: readonly Phase[];
  /** Failures of the boot, one line each; the guest came up despite them. */
  readonly failures: readonly string[];
  /** False for an ordinary process in a test, which ends with its channel. */
  readonly isMachine: boolean;
  /** Sealed memfd of crun, for `spawn({ programFd })`; `undefined` if there is no crun. */
  readonly crunFd: number | undefined;
  /** Descriptor of the program of `usualDevicesProgram`; `undefined`: crun loads one for each container. */
  readonly usualDevicesFd: number | undefined;
  /** Loads a kernel module with its dependencies; false: it is built in or not available. */
  readonly loadModule: (name: string) => boolean;
}
