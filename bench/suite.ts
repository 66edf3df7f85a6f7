/** What every suite is given. */
export interface SuiteOptions {
  /** How often each quantity is measured; with `density`, `burst` and `cri`: how many pods. */
  readonly rounds: number;
  /** Runtimes to measure in the same run, where they are installed. */
  readonly peers: readonly string[];
  /** Prints a progress line. */
  readonly say: (line: string) => void;
}
