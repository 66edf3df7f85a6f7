/** Options of every suite. */
export interface SuiteOptions {
  /** Number of measurements of each quantity; with `density`, `burst` and `cri`: number of pods. */
  readonly rounds: number;
  /** Prints a progress line. */
  readonly say: (line: string) => void;
}
