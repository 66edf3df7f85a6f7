/** The connection of a guest to the network that the host has made for it. */
export interface GuestConnection {
  /** Whether it is made. While it is not, the guest is still at it, or has failed. */
  readonly isMade: boolean;
  /** Settles when it is made: the pod's containers start then. Errors: those of the agent. */
  readonly made: Promise<void>;
  /** Stops waiting for it, and settles when nothing of the wait is left. */
  end(): Promise<void>;
}

/** The connection of a guest that an earlier process has seen connected. */
export const madeBefore: GuestConnection = { isMade: true, made: Promise.resolve(), end: () => Promise.resolve() };
