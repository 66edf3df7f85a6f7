import { Command, CommanderError, Option } from 'commander';
import { createClient } from './client.ts';
import { execCommand } from './exec-command.ts';
import { imageCommands } from './image-commands.ts';
import { consoleCommand, inspectCommand, logsCommand, psCommand, stopCommand } from './pod-commands.ts';
import { readFiles } from './read-files.ts';
import { runCommand } from './run-command.ts';
import { type Terminal, errorText } from './terminal.ts';

/** What the commands need beside a terminal; `main.ts` gives it, so that this layer stays a client. */
export interface ProgramParts {
  readonly terminal: Terminal;
  /** Socket of the podvm process of this state directory, whether one is there or not. */
  readonly socketPath: (options: GlobalOptions) => string;
  /** Makes sure that somebody serves the socket: a running process, or this one until it is disposed. */
  readonly ensureServed: (options: GlobalOptions, purpose: 'pods' | 'images') => Promise<AsyncDisposable>;
  readonly setup: (options: GlobalOptions & { readonly upgrade: boolean }) => Promise<string>;
  /** Serves until it is asked to end. */
  readonly daemon: (options: GlobalOptions & { readonly config?: string }) => Promise<void>;
  readonly doctor: (
    options: GlobalOptions & { readonly json: boolean },
  ) => Promise<{ text: string; isHealthy: boolean }>;
  readonly version: string;
}

export interface GlobalOptions {
  readonly root?: string;
  readonly logLevel?: string;
}

const usageErrorCode = 2;
const failureCode = 125;

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

function buildProgram(parts: ProgramParts, exit: (code: number) => void): Command {
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

  program
    .command('run')
    .description('run every Pod of the files, in the foreground')
    .argument('<files...>', 'YAML files with Pods, ConfigMaps and Secrets; - is standard input')
    .addOption(new Option('--network <mode>', 'how pods reach others').choices(['cni', 'none']).default('cni'))
    .option('-v, --verbose', 'say what happens to the pods', false)
    .action(async (files: string[], options: { network: 'cni' | 'none'; verbose: boolean }) => {
      const texts = await readFiles(files, terminal); // before anything is set up or started for them
      await using _served = await parts.ensureServed(global(), 'pods');
      exit(await runCommand(client(), { files: texts, ...options }, terminal));
    });
  program
    .command('ps')
    .description('list the pods')
    .option('--json', 'as JSON', false)
    .action(async (options: { json: boolean }) => await psCommand(client(), options, terminal));
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
  program
    .command('exec')
    .description('run a command in a container')
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .argument('<command...>', 'after --')
    .option('-c, --container <name>', 'container, where the pod has several')
    .option('-i, --stdin', 'pass standard input on', false)
    .option('-t, --tty', 'give the command a terminal', false)
    .action(async (pod: string, command: string[], options: { container?: string; stdin: boolean; tty: boolean }) => {
      exit(await execCommand(client(), { pod, container: options.container, ...options, command }, terminal));
    });
  program
    .command('stop')
    .description('terminate a pod')
    .argument('<pod>', 'NAME or NAMESPACE/NAME')
    .option('--grace <seconds>', "instead of the pod's terminationGracePeriodSeconds")
    .action(async (pod: string, options: { grace?: string }) => await stopCommand(client(), pod, options, terminal));
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
    async (use) => {
      await using _served = await parts.ensureServed(global(), 'images');
      await use(client());
    },
    terminal,
  );
  program
    .command('daemon')
    .description('serve CRI to a kubelet, and the other commands, until SIGTERM')
    .option('--config <file>', 'settings, as docs/configuration.md has them')
    .action(async (options: { config?: string }) => await parts.daemon({ ...global(), ...options }));
  program
    .command('setup')
    .description('install what is missing; nothing is done twice')
    .option('--upgrade', 'take newer packages', false)
    .action(async (options: { upgrade: boolean }) => {
      terminal.stdout.write(await parts.setup({ ...global(), ...options }));
    });
  program
    .command('doctor')
    .description('say what this machine has and lacks, with the fix for each')
    .option('--json', 'as JSON', false)
    .action(async (options: { json: boolean }) => {
      const { text, isHealthy } = await parts.doctor({ ...global(), ...options });
      terminal.stdout.write(text);
      exit(isHealthy ? 0 : 1);
    });
  for (const command of program.commands) command.copyInheritedSettings(program);
  return program;
}
