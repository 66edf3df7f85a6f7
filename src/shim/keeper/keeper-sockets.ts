/**
 * The *keeper* is a process that holds containerd's connections and the FIFOs of containers while podvm is replaced:
 * containerd takes a task for dead when its connection closes, and a log for complete when its FIFO has no writer. There is
 * one for a node. It never ends by itself, and has few functions, because podvm may be upgraded while it runs.
 */
export interface KeeperSockets {
  /** Socket for containerd; the others are beside it. */
  readonly shim: string;
  /** Socket on which the daemon serves the task API to the keeper. */
  readonly daemon: string;
  /** Socket on which the keeper takes FIFOs from the daemon. */
  readonly keeper: string;
  /** A file with which the launcher asks for a keeper. */
  readonly wanted: string;
}

export const keeperSocketsOf = (shim: string): KeeperSockets => ({
  shim,
  daemon: `${shim}.daemon`,
  keeper: `${shim}.keeper`,
  wanted: `${shim}.wanted`,
});

/**
 * A request of the daemon on the keeper's own socket: one line of JSON, which is answered with another. After `carry`,
 * the daemon sends the bytes for that FIFO.
 */
export type KeeperRequest =
  /** Opens a FIFO for output, or continues with it. */
  | { readonly do: 'carry'; readonly path: string }
  /** Keeps a FIFO for input open, also when nothing writes to it. */
  | { readonly do: 'hold'; readonly path: string }
  /** Closes a FIFO, after it has passed on its bytes. */
  | { readonly do: 'end'; readonly path: string }
  /** Closes a FIFO at once, and forgets it. */
  | { readonly do: 'forget'; readonly path: string }
  /** Only stays connected. */
  | { readonly do: 'watch' };

export interface KeeperAnswer {
  /** Bytes that the FIFO received from earlier connections. */
  readonly written: number;
  readonly error?: string;
}

export const maxLineBytes = 8192;
