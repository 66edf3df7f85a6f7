import { type Command, Option } from 'commander';
import { flag } from '../command-row.ts';
import { parseAfter } from '../parse-after.ts';
import { refusalsOf, refusedNamespace } from '../refusals.ts';

interface ExecFlags {
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

const shownOptions: readonly Option[] = [
  new Option('-c, --container <name>', 'container, where the pod has several'),
  flag('-i, --stdin', 'pass standard input on'),
  flag('-t, --tty', 'give the command a terminal'),
];

const withEnv = 'Write `podvm exec POD env NAME=VALUE COMMAND`.';
/** Flags of docker and kubectl. */
const execRefusals = refusalsOf([
  {
    flags: '-u, --user [value]',
    why: 'a command has the user of its container',
    fix: 'Use `podvm debug POD`, whose shell is root, or a program of the image such as su.',
  },
  { flags: '-e, --env [value]', why: 'a command has the variables of its container', fix: withEnv },
  { flags: '--env-file [value]', why: 'a command has the variables of its container', fix: withEnv },
  {
    flags: '-w, --workdir [value]',
    why: 'a command begins in the directory of its container',
    fix: 'Write `podvm exec POD sh -c "cd PATH && COMMAND"`.',
  },
  {
    flags: '-d, --detach',
    why: 'a command is followed to its end',
    fix: 'Write `podvm exec POD sh -c "COMMAND >/dev/null 2>&1 &"`.',
  },
  { flags: '--privileged', why: 'a command has the rights of its container', fix: 'Use `podvm debug POD`.' },
  refusedNamespace,
]);

/** Options of `podvm exec`, with those that it refuses. */
export const execOptions: readonly Option[] = [...shownOptions, ...execRefusals.options];

/**
 * Parses the words after `exec`. Our options may stand before or after the pod; the first other word after the pod
 * begins the command, whose options are its own: `exec web -c app ls -l`. `--` may separate the two, as in kubectl.
 */
export function parseExecWords(exec: Command, words: readonly string[]): ExecWords {
  const after = parseAfter(exec, { argument: '<command...>', options: execOptions, passesThrough: true }, words);
  execRefusals.refuse(after.opts());
  const { container, stdin, tty } = after.opts<ExecFlags>();
  return { command: after.args, container, stdin, tty };
}
