/** Holds FIFOs for the next daemon. */
export interface FifoKeeper {
  /** Keeps a FIFO for input open, also when nothing writes to it. Errors: `invalid`, `unavailable`. */
  hold(path: string): Promise<void>;
  /** Closes a FIFO, after it has passed on its bytes. Never rejects. */
  end(path: string): Promise<void>;
  /** Closes a FIFO at once. Never rejects. */
  forget(path: string): Promise<void>;
}
