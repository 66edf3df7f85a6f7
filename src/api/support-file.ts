/** A file of a support bundle. */
export interface SupportFile {
  /** Path in the bundle; names of pods and containers in it may be anything. */
  readonly name: string;
  readonly text: string;
}
