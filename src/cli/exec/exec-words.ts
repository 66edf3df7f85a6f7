import { Command, Option } from 'commander';
import { flag } from '../command-row.ts';

export interface ExecFlags {
  readonly container?: string;
  readonly stdin: boolean;
  readonly tty: boolean;
}

export interface ExecWords {
  readonly command: readonly string[];
  readonly container: string | undefined;
  readonly stdin: boolean;
  readonly tty: boolean;
}

export const execOptions: readonly Option[] = [
  new Option('-c, --container <name>', 'container, where the pod has several'),
  flag('-i, --stdin', 'pass standard input on'),
  flag('-t, --tty', 'give the command a terminal'),
];

/**
 * Parses the words after `exec`. Our options may stand before or after the pod; the first other word after the pod
 * begins the command, whose options are its own: `exec web -c app ls -l`. `--` may separate the two, as in kubectl.
 */
export function parseExecWords(exec: Command, before: ExecFlags, words: readonly string[]): ExecWords {
  const after = new Command(exec.name()).argument('<command...>').passThroughOptions();
  for (const option of execOptions) after.addOption(option);
  after.copyInheritedSettings(exec).parse(words, { from: 'user' });
  const { container, stdin, tty } = after.opts<ExecFlags>();
  return {
    command: after.args,
    container: container ?? before.container,
    stdin: stdin || before.stdin,
    tty: tty || before.tty,
  };
}
