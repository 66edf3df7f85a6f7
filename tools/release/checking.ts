import type { Release } from './release.ts';

/** Input of all parts of the check. */
export interface Checking {
  readonly release: Release;
  readonly dist: string;
  /** An empty directory. */
  readonly work: string;
  /** Commit of the older release. */
  readonly older: string;
  readonly report: (line: string) => void;
}
