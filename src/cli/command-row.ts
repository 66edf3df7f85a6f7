import { Option } from 'commander';

/** One command: its help and its action. */
export interface CommandRow {
  readonly name: string;
  readonly description: string;
  /** Syntax and description of each argument, in order. */
  readonly arguments?: readonly (readonly [syntax: string, description?: string])[];
  readonly options?: readonly Option[];
  /** Replaces the form of its command line in help. */
  readonly usage?: string;
  /** The command makes nothing on this machine that it would have to undo. */
  readonly isClient?: true;
  /** It reads what the other commands are, which are built for it, too. */
  readonly readsOthers?: true;
  /** Its own options may stand before a command line of another program. */
  readonly passesThrough?: true;
  readonly commands?: readonly CommandRow[];
  /** Receives the arguments, the options and the command itself, as commander passes them. */
  readonly action?: (...given: never[]) => Promise<void>;
}

/** A boolean option; default: false. */
export const flag = (flags: string, description: string): Option => new Option(flags, description).default(false);
