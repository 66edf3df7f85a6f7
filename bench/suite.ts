/** Options of every suite. */
export interface SuiteOptions {
  /** Number of measurements of each quantity; with `density`, `burst`, `cri`, `adopt` and `scrape`: number of pods. */
  readonly rounds: number;
  /** Prints a progress line. */
  readonly say: (line: string) => void;
}
