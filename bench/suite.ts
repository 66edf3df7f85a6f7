/** What every suite is given. */
export interface SuiteOptions {
  /** How often each quantity is measured; with `density`, `burst` and `cri`: how many pods. */
  readonly rounds: number;
  /** Prints a progress line. */
  readonly say: (line: string) => void;
}
