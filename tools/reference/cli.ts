import { type Argument, type Command, Help, type Option } from 'commander';
import { notExecutable, noSuchProgram } from '../../src/admin/session/exec-refusal.ts';
import { helpProgram } from '../../src/cli/help-pages.ts';
import { failureCode, usageErrorCode } from '../../src/cli/exit-codes.ts';
import { code, page, table } from './markdown.ts';

const help = new Help();

export async function cliPage(): Promise<string> {
  const program = helpProgram();
  const commands = [...leavesOf(program, ['podvm'])];
  return await page(
    'Commands',
    'the command tree in `src/cli/program.ts`',
    `${program.description()} \`podvm COMMAND --help\` prints the same in a terminal.`,
    '## Global options',
    optionsOf(program),
    ...commands.flatMap(({ command, words }) => [
      `## ${words.join(' ')}`,
      sentence(command.description()),
      `\`\`\`sh\n${words.slice(0, -1).join(' ')} ${command.name()} ${command.usage()}\n\`\`\``,
      ...(command.registeredArguments.length === 0 ? [] : [argumentsOf(command.registeredArguments)]),
      ...(optionRows(command).length === 0 ? [] : [optionsOf(command)]),
    ]),
    '## Exit codes',
    table(
      ['code', 'meaning'],
      [
        ['0', 'The command succeeded; for `podvm run`, all containers of all pods did.'],
        [String(usageErrorCode), 'The command line is wrong.'],
        [String(failureCode), 'podvm itself failed, or refused a pod.'],
        [String(notExecutable), '`podvm exec`, `podvm run`: the program is not executable.'],
        [String(noSuchProgram), '`podvm exec`, `podvm run`: the program does not exist.'],
        ['128 + signal', '`podvm` was ended by that signal, for instance 130 for SIGINT.'],
        [
          'other',
          '`podvm run`: the exit code of the first container that failed. `podvm exec`: the exit code of the command. ' +
            '`podvm doctor`: 1 if something is missing.',
        ],
      ],
    ),
  );
}

function* leavesOf(command: Command, words: readonly string[]): Generator<{ command: Command; words: string[] }> {
  for (const child of command.commands) {
    const own = [...words, child.name()];
    if (child.commands.length === 0) yield { command: child, words: own };
    else yield* leavesOf(child, own);
  }
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function argumentsOf(all: readonly Argument[]): string {
  return table(
    ['argument', 'meaning'],
    all.map((argument) => [code(help.argumentTerm(argument)), help.argumentDescription(argument)]),
  );
}

/** Without `--help`, which every command has. */
function optionRows(command: Command): Option[] {
  return help.visibleOptions(command).filter(({ long }) => long !== '--help');
}

function optionsOf(command: Command): string {
  return table(
    ['option', 'meaning', 'default'],
    optionRows(command).map((option) => [code(help.optionTerm(option)), meaningOf(option), defaultOf(option)]),
  );
}

function meaningOf({ description, argChoices }: Option): string {
  return argChoices === undefined ? description : `${description}: ${argChoices.map(code).join(', ')}`;
}

/** Switches are off. */
function defaultOf({ defaultValue }: Option): string {
  return typeof defaultValue === 'string' ? code(defaultValue) : '';
}
