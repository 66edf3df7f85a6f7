import { Command, CommanderError, Help, Option } from 'commander';
import { kindOf } from '#base/errors.ts';
import { acceptBooleanValues } from './boolean-values.ts';
import type { CommandRow } from './command-row.ts';
import { commandGroups } from './command-groups.ts';
import { commandTable } from './commands.ts';
import { catchEndSignals, type EndSignals } from './terminal/end-signals.ts';
import { failureCode, usageErrorCode } from './exit-codes.ts';
import { foreignFlags, ownAdvice } from './foreign-flags.ts';
import { foreignWords } from './foreign-words.ts';
import { refusalsOf } from './refusals.ts';
import type { GlobalOptions, ProgramParts } from './program-parts.ts';
import { errorText, fixLine } from './terminal/terminal.ts';

/** Runs one command line (without `node` and script) and returns the exit code. */
export async function runProgram(argv: readonly string[], parts: ProgramParts): Promise<number> {
  let exitCode = 0;
  const exit = (code: number) => {
    exitCode = code;
  };
  const program = buildProgram(parts, exit, argv[0]);
  acceptBooleanValues(program, argv);
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : usageErrorCode;
    parts.terminal.stderr.write(errorText(error));
    return failureCode;
  }
}

/**
 * Builds the commands, or only the one that is `wanted`: to build all takes as long as most commands do until they call the
 * node. `exit` is called with a command's exit code unless it is 0.
 */
export function buildProgram(parts: ProgramParts, exit: (code: number) => void, wanted?: string): Command {
  const { terminal } = parts;
  const program = new Command('podvm')
    .description('Runs Kubernetes pods, each in its own microVM.')
    .version(parts.version)
    .option('--root <dir>', 'state directory (default: /var/lib/podvm; for an ordinary user ~/.local/share/podvm)')
    .addOption(
      new Option('--log-level <level>', 'least severe messages for standard error').choices([
        'debug',
        'info',
        'warn',
        'error',
        'silent',
      ]),
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
      outputError: (text, writeTo) => writeTo(text.replace(/^error: /, 'podvm: ').replace('\n(Did', ' (Did')),
    })
    .enablePositionalOptions()
    .configureHelp({ subcommandTerm: (command) => command.name(), optionDescription: describeOption })
    .showHelpAfterError('  fix: See `podvm --help`, or `podvm COMMAND --help`.');
  const global = () => program.opts<GlobalOptions>();
  const clients = new Set<Command>();
  // `podvm logs | head` ends when head has read enough; a command that must clean up does so first.
  program.hook('preAction', (_, command) => {
    if (clients.has(command)) terminal.outputGone.addEventListener('abort', () => parts.leave(0));
  });
  const untilEnded = async (use: (ends: EndSignals) => Promise<void>) => {
    using ends = catchEndSignals(parts.signals, terminal, parts.keepsHangUp);
    try {
      await use(ends);
    } catch (error) {
      if (ends.exitCode === undefined || kindOf(error) !== 'cancelled') throw error;
      exit(ends.exitCode);
    }
  };

  program.addOption(new Option('-v').hideHelp()); // docker's and podman's
  program.on('option:v', () => {
    terminal.stdout.write(`${parts.version}\n`);
    throw new CommanderError(0, 'commander.version', parts.version);
  });
  answerForeignWords(program, []);
  const rows = new Map(commandTable({ parts, global, exit, untilEnded }).map((row) => [row.name, row]));
  const only = rows.get(wanted ?? '');
  const isBuilt = (row: CommandRow) => only === undefined || only.readsOthers === true || row === only;
  for (const [heading, names] of Object.entries(commandGroups)) {
    program.commandsGroup(heading);
    for (const row of names.flatMap((name) => rows.get(name) ?? []).filter(isBuilt)) {
      const command = addCommand(program, row);
      command.copyInheritedSettings(program);
      nameHelp(command, row.name);
      const advice = ownAdvice.get(row.name);
      if (advice !== undefined) command.showHelpAfterError(fixLine(advice));
      refuseForeignFlags(command, row.name);
      if (command.commands.length > 0) answerForeignWords(command, [row.name]);
      if (row.isClient === true) clients.add(command);
    }
  }
  return program.helpCommand('help [command]', 'display help for a command');
}

/** As commander describes options, but does not say that a flag is off by default. */
const describeOption = (option: Option): string => {
  const shown = new Option(option.flags, option.description).default(
    option.defaultValue === false ? undefined : option.defaultValue,
  );
  if (option.argChoices !== undefined) shown.choices(option.argChoices);
  return new Help().optionDescription(shown);
};

/** Answers unknown commands below this one with what to type instead, where that is known. `names`: those of the command. */
function answerForeignWords(command: Command, names: readonly string[]): void {
  command.on('command:*', ([word = '']: readonly string[]) => {
    const instead = foreignWords.get([...names, word].join(' '));
    if (instead !== undefined) command.showSuggestionAfterError(false).showHelpAfterError(fixLine(instead));
    // SAFE: commander's own answer to an unknown command, used where no listener exists; its types leave it out
    (command as unknown as { unknownCommand(): never }).unknownCommand();
  });
}

function refuseForeignFlags(command: Command, words: string): void {
  const { options, refuse } = refusalsOf(foreignFlags.get(words) ?? []);
  for (const option of options) command.addOption(option);
  if (options.length > 0) command.hook('preAction', () => refuse(command.opts()));
  for (const below of command.commands) refuseForeignFlags(below, `${words} ${below.name()}`);
}

/** Lets an error of usage name the help of its own command. */
function nameHelp(command: Command, words: string): void {
  command.showHelpAfterError(fixLine(`See \`podvm ${words} --help\`.`));
  for (const below of command.commands) nameHelp(below, `${words} ${below.name()}`);
}

function addCommand(parent: Command, row: CommandRow): Command {
  const command = parent.command(row.name).description(row.description);
  for (const [syntax, description] of row.arguments ?? []) command.argument(syntax, description);
  for (const option of row.options ?? []) command.addOption(option);
  if (row.usage !== undefined) command.usage(row.usage);
  if (row.passesThrough === true) command.passThroughOptions();
  for (const below of row.commands ?? []) addCommand(command, below);
  // SAFE: commander passes to an action the arguments and options that the row declares.
  if (row.action !== undefined) command.action(row.action as (...given: unknown[]) => Promise<void>);
  return command;
}
