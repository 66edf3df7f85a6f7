import { type Command, Option } from 'commander';
import { flag } from '../command-row.ts';
import { parseAfter } from '../parse-after.ts';
import { PodvmError } from '#base/errors.ts';
import { collect, podFlags } from './pod-flags.ts';
import { networkOption } from './network-option.ts';
import type { FlagValues } from './pod-of-image.ts';
import { refusedOptions } from './refused-flags.ts';

/** Options of the run, not of the Pod, for files and images alike. */
const runFlags: readonly Option[] = [
  flag('-d, --detach', 'run the pods in the background, and print their names'),
  flag('--rm', 'remove the pods when they end'),
  new Option('--no-daemon', 'start no node in the background: the pods end with this command').conflicts('detach'),
  new Option(
    '-f, --file <file>',
    'run the Pods of a YAML file, its URL, or a directory; - is standard input; can be repeated',
  ).argParser(collect),
  networkOption(),
  flag('--verbose', 'print events of the pods'),
  flag('-q, --quiet', 'say nothing of pulls that take long'),
];

/** Options that only print. */
const printFlags: readonly Option[] = [
  flag('--dry-run', 'print the Pod that an image and its flags make, and run nothing'),
  new Option('-o, --output <format>', 'form of --dry-run').choices(['yaml', 'json']).default('yaml'),
];

/** Options of `podvm run`, in the order of its help. */
export const runOptions: readonly Option[] = [
  ...podFlags.map(({ option }) => option),
  ...runFlags,
  ...printFlags,
  ...refusedOptions,
];

/** Values of the options that concern every run. */
export interface RunFlags extends FlagValues {
  readonly file?: readonly string[];
  readonly network: 'cni' | 'none';
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly detach: boolean;
  readonly rm: boolean;
  /** False with `--no-daemon`. */
  readonly daemon: boolean;
  readonly dryRun: boolean;
  readonly output: 'yaml' | 'json';
}

/**
 * Parses the words after the first file, between which options may stand: `run a.yaml --network none b.yaml`. Returns the
 * command with the values of all options, and with the files as its arguments.
 */
export function parseFileWords(run: Command, words: readonly string[]): Command {
  const after = parseAfter(run, { argument: '<files...>', options: runOptions, passesThrough: false }, words);
  refuseImageFlags(after, after.args[0] ?? '');
  return after;
}

/** Returns the options that were given, without the defaults. */
function givenTo(command: Command): FlagValues {
  const entries = Object.entries(command.opts<FlagValues>());
  return Object.fromEntries(entries.filter(([name]) => command.getOptionValueSource(name) === 'cli'));
}

/** Errors: `invalid` for a flag that describes a Pod, because the file does so. */
export function refuseImageFlags(command: Command, file: string): void {
  const given = givenTo(command);
  const isGiven = (option: Option) => given[option.attributeName()] !== undefined;
  if (printFlags.some(isGiven)) {
    throw new PodvmError(
      'invalid',
      `Cannot use --dry-run with ${file}: it prints the Pod that an image and flags make`,
      {
        fix: 'Leave it out, or name an image instead of the file.',
      },
    );
  }
  for (const { option } of podFlags) {
    if (!isGiven(option)) continue;
    throw new PodvmError(
      'invalid',
      `Cannot use ${option.long ?? option.flags} with ${file}: the file describes the Pod`,
      {
        fix: 'Write it into the file, or name an image instead of the file.',
      },
    );
  }
}
