/**
 * Figures of a file server about the requests of its guest: it writes them to a page of memory, and the node reads that
 * (`src/file-server/request-figures.c` has the same layout). The page has words of 64 bits, little-endian: first the time
 * at which the oldest request under way began (0: none), in `ns` of the monotonic clock, then from word 8 on, for each
 * kind, the requests by duration and the sum of their durations in `ns`.
 */

/** Kinds of requests. `flush`: until the data is on the disk; `other`: locks, closing, forgetting. */
export const requestKinds = ['look', 'read', 'write', 'change', 'flush', 'other'] as const;
export type RequestKind = (typeof requestKinds)[number];

/** Upper bounds of the durations that are counted together, in seconds. One more count is of those above all bounds. */
export const requestBounds: readonly number[] = [0.0001, 0.001, 0.01, 0.1, 1, 10];

export const requestPage = {
  /** Name of the memory, with the version of this layout. */
  name: 'podvm-requests-1',
  /** Descriptor of the server's process. */
  fd: 6,
  /** First word of the kinds, and words of each. */
  kindsAt: 8,
  wordsOfKind: 8,
  bytes: 8 * (8 + 8 * requestKinds.length),
} as const;
