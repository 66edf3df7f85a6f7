import type { Release } from './release.ts';

/** What all parts of the check get. */
export interface Checking {
  readonly release: Release;
  readonly dist: string;
  /** An empty directory. */
  readonly work: string;
  readonly report: (line: string) => void;
}
