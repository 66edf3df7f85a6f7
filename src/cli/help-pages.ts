import type { Command } from 'commander';
import { buildProgram } from './program.ts';
import type { ProgramParts } from './program-parts.ts';

const columns = 80;
const never = () => Promise.reject(new Error('help runs no command'));

/** Never run: only what commands and options are called is looked at. */
const parts: ProgramParts = {
  terminal: {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    hasColour: false,
    outputGone: new AbortController().signal,
  },
  signals: process,
  keepsHangUp: false,
  leave: () => undefined,
  socketPath: () => '',
  ensureServed: never,
  orphans: never,
  endOrphans: never,
  setup: never,
  daemon: never,
  doctor: never,
  version: '',
};

/** The tree of commands, to be read and not run. */
export function helpProgram(): Command {
  return buildProgram(parts, () => undefined);
}

/** The help of every command, each below a line with its name: `help.txt`, for where there is no Node yet. */
export function helpPages(): string {
  return [...pagesOf(helpProgram(), [])].join('');
}

function* pagesOf(command: Command, names: readonly string[]): Generator<string> {
  command.configureOutput({ getOutHelpWidth: () => columns });
  yield `== ${names.join(' ') || 'podvm'}\n${command.helpInformation()}`;
  for (const child of command.commands) yield* pagesOf(child, [...names, child.name()]);
}
