import type { Command } from 'commander';
import { foreignWords } from './foreign-words.ts';
import { buildProgram } from './program.ts';
import { type ProgramParts, refusingParts } from './program-parts.ts';

const columns = 80;

/** Parts of a program that is never run: only its commands and options are read. */
const parts: ProgramParts = {
  ...refusingParts(() => {
    throw new Error('help runs no command');
  }),
  terminal: {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    hasColour: false,
    outputGone: new AbortController().signal,
  },
  signals: process,
  keepsHangUp: false,
  environment: {},
  version: '',
};

/** Returns the tree of commands for reading. */
export function helpProgram(): Command {
  return buildProgram(parts, () => undefined);
}

/**
 * Returns the help of every command below a line with its name, and commands of other programs with podvm's: the content of
 * `help.txt`, used before Node is installed.
 */
export function helpPages(): string {
  const words = [...foreignWords].map(([word, instead]) => `  ${word}: ${instead}\n`);
  return [...pagesOf(helpProgram(), []), `== :foreign\n${words.join('')}`].join('');
}

function* pagesOf(command: Command, names: readonly string[]): Generator<string> {
  command.configureOutput({ getOutHelpWidth: () => columns });
  yield `== ${names.join(' ') || 'podvm'}\n${command.helpInformation()}`;
  const hidden = command.options.filter((option) => option.hidden);
  if (hidden.length > 0) yield `== ${names.join(' ')}:refused\n${hidden.map(({ flags }) => `  ${flags}\n`).join('')}`;
  for (const child of command.commands) yield* pagesOf(child, [...names, child.name()]);
}
