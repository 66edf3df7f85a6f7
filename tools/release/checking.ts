import type { Release } from './release.ts';

/** What all parts of the check get. */
export interface Checking {
  readonly release: Release;
  readonly dist: string;
  /** An empty directory. */
  readonly work: string;
  /** Commit of the older release. */
  readonly older: string;
  readonly report: (line: string) => void;
}
