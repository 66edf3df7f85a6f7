import { Option } from 'commander';

/** One command: what its help says, and what it does. */
export interface CommandRow {
  readonly name: string;
  readonly description: string;
  /** In order: how it is written, and what it is. */
  readonly arguments?: readonly (readonly [syntax: string, description?: string])[];
  readonly options?: readonly Option[];
  /** Replaces the form of its command line in help. */
  readonly usage?: string;
  /** It makes nothing on this machine that it would have to undo. */
  readonly isClient?: true;
  /** Its own options may stand before a command line of another program. */
  readonly passesThrough?: true;
  readonly commands?: readonly CommandRow[];
  /** Gets its arguments, its options, and the command itself, as commander gives them. */
  readonly action?: (...given: never[]) => Promise<void>;
}

/** An option that is given or not. */
export const flag = (flags: string, description: string): Option => new Option(flags, description).default(false);
