import type { Command } from 'commander';
import { foreignWords } from './foreign-words.ts';
import { buildProgram } from './program.ts';
import type { ProgramParts } from './program-parts.ts';

const columns = 80;
const never = () => Promise.reject(new Error('help runs no command'));

/** Parts of a program that is never run: only its commands and options are read. */
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
  environment: {},
  checkManifests: () => Promise.resolve([]),
  namedImages: never,
  userLogins: never,
  login: never,
  logout: never,
  socketPath: () => '',
  ensureServed: never,
  serveLeftPods: never,
  knownPods: never,
  orphans: never,
  endOrphans: never,
  setup: never,
  install: never,
  uninstall: never,
  daemon: never,
  doctor: never,
  supportBundle: never,
  diskUsage: never,
  serveDashboard: never,
  version: '',
  versions: never,
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
