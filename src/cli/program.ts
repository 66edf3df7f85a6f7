import { Command, CommanderError, Option } from 'commander';
import { createClient } from './client.ts';
import { kindOf } from '#base/errors.ts';
import { catchEndSignals, type EndSignals } from './end-signals.ts';
import { execCommand } from './exec-command.ts';
import { type ExecFlags, addExecOptions, parseExecWords } from './exec-words.ts';
import { imageCommands } from './image-commands.ts';
import { type Orphan, stopOrphans, warnOfOrphans } from './orphans.ts';
import { consoleCommand, inspectCommand, logsCommand, psCommand, stopCommand } from './pod-commands.ts';
import { readFiles } from './read-files.ts';
import { runCommand } from './run-command.ts';
import { type Terminal, errorText } from './terminal.ts';

/** What the commands need beside a terminal; `main.ts` gives it, so that this layer stays a client. */
export interface ProgramParts {
  readonly terminal: Terminal;
  /** Socket of the podvm process of this state directory, whether one is there or not. */
  readonly socketPath: (options: GlobalOptions) => string;
  /** Where signals of this process arrive. */
  readonly signals: NodeJS.EventEmitter;
  /** SIGHUP was ignored when it began (nohup), and stays so. */
  readonly keepsHangUp: boolean;
  /** Ends this process at once. */
  readonly leave: (code: number) => void;
  /** Makes sure that a process serves a socket: a running one, or this one until it is disposed. */
  readonly ensureServed: (options: GlobalOptions, purpose: Purpose, ends: EndSignals) => Promise<Served>;
  /** Machines that run, and whose podvm does not. */
  readonly orphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  /** Ends them and takes away what they left. */
  readonly endOrphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  readonly setup: (
    options: GlobalOptions & { readonly upgrade: boolean; readonly sbom: boolean },
    ends: EndSignals,
  ) => Promise<string>;
  /** Serves until it is asked to end. */
  readonly daemon: (options: GlobalOptions & { readonly config?: string }) => Promise<void>;
  readonly doctor: (
    options: GlobalOptions & { readonly json: boolean },
    ends: EndSignals,
  ) => Promise<{ text: string; isHealthy: boolean }>;
  readonly version: string;
}

/** `storedImages`: those that are there; needs nothing that set-up makes. */
export type Purpose = 'pods' | 'images' | 'storedImages';

export interface Served extends AsyncDisposable {
  /** Where the admin API is. */
  readonly socketPath: string;
}

export interface GlobalOptions {
  readonly root?: string;
  readonly logLevel?: string;
}

export const usageErrorCode = 2;
export const failureCode = 125;
/** Commands that have made nothing on this machine which they would have to undo. */
const clients: ReadonlySet<string> = new Set(['ps', 'logs', 'exec', 'stop', 'inspect', 'console']);

/** Runs one command line (without `node` and script) and returns the exit code. */
export async function runProgram(argv: readonly string[], parts: ProgramParts): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(parts, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : usageErrorCode;
    parts.terminal.stderr.write(errorText(error));
    return failureCode;
  }
}

/** `exit` is told a command's exit code where that is not 0. */
export function buildProgram(parts: ProgramParts, exit: (code: number) => void): Command {
  const { terminal } = parts;
  const program = new Command('podvm')
    .description('Runs Kubernetes pods, each in its own microVM.')
    .version(parts.version)
    .option('--root <dir>', 'state directory (default: /var/lib/podvm)')
    .addOption(
      new Option('--log-level <level>', 'what goes to standard error').choices([
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
      outputError: (text, writeTo) => writeTo(text.replace(/^error: /, 'podvm: ')),
    })
    .enablePositionalOptions()
    .showHelpAfterError('  fix: See `podvm --help`, or `podvm COMMAND --help`.');
  const global = () => program.opts<GlobalOptions>();
  const client = () => createClient(parts.socketPath(global()));
  // `podvm logs | head` ends when head has read enough; a command that has made something undoes it first.
  program.hook('preAction', (_, command) => {
    if (clients.has(command.name())) terminal.outputGone.addEventListener('abort', () => parts.leave(0));
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

  program
    .command('run')
    .description('run every Pod of the files, in the foreground')
    .argument('<files...>', 'YAML files with Pods, ConfigMaps and Secrets; - is standard input')
    .addOption(new Option('--network <mode>', 'how pods reach others').choices(['cni', 'none']).default('cni'))
    .option('-v, --verbose', 'say what happens to the pods', false)
    .action(async (files: string[], options: { network: 'cni' | 'none'; verbose: boolean }) => {
      const texts = await readFiles(files, terminal); // before anything is set up or started for them
      await untilEnded(async (ends) => {
        await using served = await parts.ensureServed(global(), 'pods', ends);
        exit(await runCommand(createClient(served.socketPath), { files: texts, ...options }, terminal, ends));
      });
    });
  program
    .command('ps')
    .description('list the pods')
    .option('--json', 'as JSON', false)
    .action(async (options: { json: boolean }) => {
      await warnOfOrphans(await psCommand(client(), () => parts.orphans(global()), options, terminal), terminal);
    });
  program
    .command('logs')
    .description("print a container's output")
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .option('-c, --container <name>', 'container, where the pod has several')
    .option('-f, --follow', 'go on until the container ends', false)
    .option('-p, --previous', 'of the instance before the last restart', false)
    .option('--tail <lines>', 'only the last lines')
    .action(
      async (pod: string, options: Parameters<typeof logsCommand>[2]) =>
        await logsCommand(client(), pod, options, terminal),
    );
  addExecOptions(program.command('exec'))
    .description('run a command in a container')
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .argument('<command...>', 'with its own options, after -- or without')
    .passThroughOptions()
    .action(async (pod: string, words: string[], options: ExecFlags, itself: Command) => {
      exit(await execCommand(client(), { pod, ...parseExecWords(itself, options, words) }, terminal));
    });
  program
    .command('stop')
    .description('terminate a pod')
    .argument('[pod]', 'NAME or NAMESPACE/NAME')
    .option('--grace <seconds>', "instead of the pod's terminationGracePeriodSeconds")
    .option('--orphaned', 'every machine whose podvm was killed, and what it left', false)
    .action(async (pod: string | undefined, options: { grace?: string; orphaned: boolean }, itself: Command) => {
      if ((pod === undefined) !== options.orphaned) itself.error('error: name a pod, or give --orphaned alone');
      if (pod === undefined) await stopOrphans(await parts.endOrphans(global()), terminal);
      else await stopCommand(client(), pod, options, terminal);
    });
  program
    .command('inspect')
    .description('show all that is known of a pod, as JSON')
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .action(async (pod: string) => await inspectCommand(client(), pod, terminal));
  program
    .command('console')
    .description("print the serial console of a pod's guest, for debugging")
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .option('-f, --follow', 'go on until the machine ends', false)
    .action(
      async (pod: string, options: { follow: boolean }) => await consoleCommand(client(), pod, options, terminal),
    );
  imageCommands(
    program,
    async (purpose, use) =>
      await untilEnded(async (ends) => {
        await using served = await parts.ensureServed(global(), purpose, ends);
        await use(createClient(served.socketPath));
      }),
    terminal,
  );
  program
    .command('daemon')
    .description('serve CRI to a kubelet, and the other commands, until SIGTERM')
    .option('--config <file>', 'file of settings; docs/reference/settings.md lists them')
    .action(async (options: { config?: string }) => await parts.daemon({ ...global(), ...options }));
  program
    .command('setup')
    .description('install what is missing; nothing is done twice')
    .addOption(new Option('--upgrade', 'take newer packages, for new pods').default(false).conflicts('sbom'))
    .option('--sbom', 'print what is installed, as CycloneDX 1.6; installs nothing', false)
    .action(async (options: { upgrade: boolean; sbom: boolean }) => {
      await untilEnded(async (ends) => {
        terminal.stdout.write(await parts.setup({ ...global(), ...options }, ends));
      });
    });
  program
    .command('doctor')
    .description('say what this machine has and lacks, with the fix for each')
    .option('--json', 'as JSON', false)
    .action(async (options: { json: boolean }) => {
      await untilEnded(async (ends) => {
        const { text, isHealthy } = await parts.doctor({ ...global(), ...options }, ends);
        terminal.stdout.write(text);
        exit(isHealthy ? 0 : 1);
      });
    });
  for (const command of program.commands) command.copyInheritedSettings(program);
  return program;
}
