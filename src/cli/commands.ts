import { type Command, Option } from 'commander';
import { kindOf } from '#base/errors.ts';
import { type Client, createClient } from './client.ts';
import { type CommandRow, flag } from './command-row.ts';
import { dashboardCommand, parsePort } from './node/dashboard-command.ts';
import { describeCommand } from './pods/describe-command.ts';
import type { EndSignals } from './terminal/end-signals.ts';
import { debugCommand, debugOptions } from './exec/debug-command.ts';
import { execCommand } from './exec/exec-command.ts';
import { execOptions, parseExecWords } from './exec/exec-words.ts';
import { imageCommands, imageListRow } from './images/image-commands.ts';
import {
  type DetailOutput,
  detailOption,
  type ListForm,
  listOptions,
  namespaceOptions,
  selectorOption,
} from './terminal/listing.ts';
import type { Choice } from './pods/label-selector.ts';
import { getCommand } from './pods/get-command.ts';
import { forEachName } from './pods/for-each-name.ts';
import { hostCommands } from './host-rows.ts';
import { lifeCommands } from './life-rows.ts';
import { loginCommands, loginsFor } from './images/login-commands.ts';
import { objectsCommands } from './run/objects-commands.ts';
import { stopOrphans, warnOfOrphans } from './pods/orphans.ts';
import { type OverheadOutput, overheadCommand } from './node/overhead-command.ts';
import { consoleCommand, drainCommand, inspectCommand, stopCommand } from './pods/pod-commands.ts';
import { arePods } from './pods/pod-name.ts';
import { logsCommand, type LogsOptions } from './pods/logs-command.ts';
import { psCommand, type PsOptions } from './pods/ps-command.ts';
import type { ProgramParts, Purpose, Setting, SetupWishes } from './program-parts.ts';
import { planRun, printPlan } from './run/run-plan.ts';
import { type RunFlags, runOptions } from './run/run-options.ts';
import { runCommand } from './run/run-command.ts';
import { volumeCommands } from './images/volume-commands.ts';

const pod = ['<pod>', 'NAME or NAMESPACE/NAME'] as const;

interface StopOptions {
  readonly grace?: string;
  readonly all: boolean;
  readonly orphaned: boolean;
}

/** All commands of `podvm`, in the order of its help. */
export function commandTable({ parts, global, exit, untilEnded }: Setting): readonly CommandRow[] {
  const { terminal } = parts;
  /** Returns a client of the running node, after starting one if pods have outlived theirs. */
  const reach = async (signal = new AbortController().signal) => {
    await parts.serveLeftPods(global(), signal);
    return createClient(parts.socketPath(global()));
  };
  const withServer = (purpose: Purpose, use: (client: Client, ends: EndSignals) => Promise<void>) =>
    untilEnded(async (ends) => {
      await using served = await parts.ensureServed(global(), purpose, ends);
      ends.any.throwIfAborted(); // from here on the command listens to signals itself
      await use(createClient(served.socketPath), ends);
    });
  const withKnown = async (use: (client: Client) => Promise<void>) => {
    await using served = await parts.knownPods(global());
    await use(createClient(served.socketPath));
  };
  const withRunning = (use: (client: Client, ends: EndSignals) => Promise<void>) =>
    untilEnded(async (ends) => await use(await reach(ends.any), ends));
  const ps = (options: PsOptions) =>
    untilEnded(async (ends) => {
      const without = { orphans: () => parts.orphans(global()), withEnded: withKnown };
      await warnOfOrphans(await psCommand(await reach(ends.any), without, options, terminal, ends.any), terminal);
    });
  /** Lists none for files that a run refuses: the node reports all their problems. */
  const imagesOf: ProgramParts['namedImages'] = (files, signal) =>
    parts.namedImages(files, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      if (kindOf(error) === 'invalid') return [];
      throw error;
    });
  return [
    {
      name: 'run',
      description: 'run an image, or the Pods of files, in the foreground or in the background',
      usage: '[options] IMAGE [COMMAND...] | FILE...',
      arguments: [
        ['[image]', 'an image, such as nginx; or a YAML file with Pods; - reads standard input'],
        ['[command...]', 'arguments or command of the image, with their own options; or more files'],
      ],
      options: runOptions,
      passesThrough: true,
      async action(first: string | undefined, rest: string[], flags: RunFlags, command: Command) {
        const words = first === undefined ? rest : [first, ...rest];
        // Before anything is set up or started for it.
        const plan = await planRun(words, flags, { command, ...parts });
        if (plan.flags.dryRun) return await printPlan(plan, parts);
        await withServer(plan.flags.daemon ? 'pods' : 'podsHere', async (server, ends) => {
          const imageNames = async () => plan.images ?? (await imagesOf(plan.files, ends.any));
          const logins = await loginsFor(imageNames, parts, ends.any);
          exit(await runCommand(server, { ...plan, imageNames, ...logins }, terminal, ends));
        });
      },
    },
    ...objectsCommands({ parts, exit, withServer, imagesOf }),
    {
      name: 'ps',
      description: 'list the pods that run, of all owners',
      options: [
        flag('-a, --all', 'list also the pods that have ended'),
        selectorOption(),
        ...namespaceOptions,
        ...listOptions(),
      ],
      isClient: true,
      action: (options: PsOptions) => ps(options),
    },
    {
      name: 'get',
      description: 'list what apply has made besides pods: Deployments, Services, Jobs, CronJobs, claims',
      arguments: [
        ['[kinds]', 'kinds as kubectl has them, such as cronjobs or deploy,svc; default: all'],
        ['[name]', 'NAME or NAMESPACE/NAME; default: all'],
      ],
      options: [selectorOption(), ...namespaceOptions, ...listOptions()],
      isClient: true,
      action: (kinds: string | undefined, name: string | undefined, options: ListForm & Choice) =>
        arePods(kinds)
          ? ps({ all: true, name, ...options })
          : untilEnded((ends) =>
              withKnown((client) => getCommand(client, { kinds, name, ...options }, terminal, ends.any)),
            ),
    },
    {
      name: 'logs',
      description: 'print the output of containers',
      arguments: [['[pods...]', 'NAME or NAMESPACE/NAME']],
      options: [
        new Option('-c, --container <name>', 'container, if the pod has several'),
        flag('--all-containers', 'print the output of all containers').conflicts('container'),
        new Option('-l, --selector <labels>', 'print the output of the pods with these labels: app=web,tier!=db'),
        flag('-f, --follow', 'follow the output until the container ends'),
        flag('-p, --previous', 'print the output of the previous instance, before the last restart'),
        new Option('-n, --tail <lines>', 'print only the last lines'),
        flag('-t, --timestamps', 'begin each line with its time'),
        new Option('--since <time>', 'print lines since a duration ago, such as 1h30m, or since a time'),
        new Option('--until <time>', 'print lines until then').conflicts('follow'),
      ],
      isClient: true,
      action: (names: string[], options: LogsOptions) =>
        withKnown(async (known) => exit(await logsCommand(known, names, options, terminal))),
    },
    {
      name: 'exec',
      description: 'run a command in a container',
      arguments: [pod, ['<command...>', 'command with its own options; a preceding -- is optional']],
      options: execOptions,
      isClient: true,
      passesThrough: true,
      async action(name: string, words: string[], _options: object, itself: Command) {
        exit(await execCommand(await reach(), { pod: name, ...parseExecWords(itself, words) }, terminal));
      },
    },
    {
      name: 'debug',
      description: 'run a shell, or a command, in a new container beside those of a pod',
      arguments: [pod, ['[command...]', 'command with its own options; a preceding -- is optional']],
      options: debugOptions,
      isClient: true,
      passesThrough: true,
      action: (name: string, words: string[], _options: object, itself: Command) =>
        withRunning(async (client, { any }) =>
          exit(await debugCommand(client, name, { itself, words }, terminal, any)),
        ),
    },
    {
      name: 'stop',
      description: 'stop pods',
      arguments: [['[pods...]', 'NAME or NAMESPACE/NAME']],
      options: [
        new Option('-t, --grace <seconds>', "grace period; default: the pod's terminationGracePeriodSeconds"),
        flag('-a, --all', 'stop all pods, also those of a kubelet'),
        flag('--orphaned', 'stop all machines that no podvm serves, and clean up'),
      ],
      isClient: true,
      async action(names: string[], options: StopOptions, itself: Command) {
        const wishes = [names.length > 0, options.all, options.orphaned].filter(Boolean);
        if (wishes.length !== 1) itself.error('error: specify either pods, --all or --orphaned');
        if (names.length > 0) {
          const client = await reach();
          exit(await forEachName(names, terminal, (name) => stopCommand(client, name, options, terminal)));
        } else if (options.all) await drainCommand(await reach(), () => parts.endOrphans(global()), options, terminal);
        else await stopOrphans(await parts.endOrphans(global()), terminal);
      },
    },
    {
      name: 'drain',
      description: 'stop all pods, also those of a kubelet, before the node goes down',
      options: [new Option('--grace <seconds>', "grace period; default: the pods' terminationGracePeriodSeconds")],
      isClient: true,
      action: async (options: { grace?: string }) =>
        drainCommand(await reach(), () => parts.endOrphans(global()), options, terminal),
    },
    {
      name: 'inspect',
      description: 'print all details of pods',
      arguments: [['<pods...>', 'NAME or NAMESPACE/NAME; several are printed as one list']],
      options: [detailOption()],
      isClient: true,
      action: (names: string[], { output }: { output: DetailOutput }) =>
        withKnown(async (known) => exit(await inspectCommand(known, names, output, terminal))),
    },
    ...lifeCommands({ terminal, exit, withServer, withKnown, withRunning }),
    {
      name: 'describe',
      description:
        'print what is wrong with pods and what happened to them, also to those of a kubelet: state, troubles, events, slow steps, figures, console',
      arguments: [['<pods...>', 'NAME or NAMESPACE/NAME']],
      isClient: true,
      action: (names: string[]) => withKnown(async (known) => exit(await describeCommand(known, names, terminal))),
    },
    {
      name: 'dashboard',
      description: 'serve a dashboard of the node to a browser of this host, until Ctrl-C',
      options: [new Option('--port <port>', 'port of 127.0.0.1; 0 takes any free one').default(0).argParser(parsePort)],
      action: ({ port }: { port: number }) =>
        untilEnded(async (ends) => {
          await using served = await parts.ensureServed(global(), 'pods', ends);
          ends.any.throwIfAborted();
          await dashboardCommand(served.socketPath, port, parts, ends);
        }),
    },
    {
      name: 'overhead',
      description: 'measure what pods cost this node beyond what they use',
      options: [
        new Option('-o, --output <format>', 'yaml and json: a RuntimeClass for the scheduler')
          .choices(['text', 'yaml', 'json'])
          .default('text'),
      ],
      isClient: true,
      action: async ({ output }: { output: OverheadOutput }) => overheadCommand(await reach(), output, terminal),
    },
    {
      name: 'console',
      description: "print the serial console of a pod's guest, for debugging",
      arguments: [pod],
      options: [flag('-f, --follow', 'follow the output until the machine ends')],
      isClient: true,
      action: async (name: string, options: { follow: boolean }) =>
        consoleCommand(await reach(), name, options, terminal),
    },
    {
      name: 'image',
      description: 'pull, load, list, tag and remove images',
      commands: imageCommands(withServer, parts, exit),
    },
    imageListRow('images', withServer, terminal),
    {
      name: 'volume',
      description: 'list, show and remove the volumes of PersistentVolumeClaims',
      commands: volumeCommands({ terminal, exit, withKnown, untilEnded }),
    },
    ...loginCommands(parts, untilEnded),
    {
      name: 'daemon',
      description: 'serve CRI for a kubelet, and the other commands, until SIGTERM',
      options: [
        new Option('--config <file>', 'settings file; see docs/reference/settings.md'),
        flag('--background', 'serve without CRI, and end when nothing runs').conflicts('config').hideHelp(),
      ],
      action: (options: { config?: string; background: boolean }) => parts.daemon({ ...global(), ...options }),
    },
    {
      name: 'setup',
      description: 'install missing packages and assets; can be repeated',
      options: [
        flag('--upgrade', 'take newer packages, for new pods').conflicts(['sbom', 'bundle', 'from']),
        new Option(
          '--kernel <name>',
          "kernel of new machines: Debian's, or a smaller one that is built here if it is missing",
        )
          .choices(['debian', 'small'])
          .conflicts(['sbom', 'bundle', 'from']),
        flag('--sbom', 'print what is installed as CycloneDX 1.6; installs nothing').conflicts(['bundle', 'from']),
        new Option('--bundle <file>', 'write what is installed to a file, for machines without a network').conflicts(
          'from',
        ),
        new Option('--from <file>', 'install from a file of --bundle, without a network or a compiler'),
        new Option('--config <file>', 'settings file of the daemon, for which the host is set up').conflicts('sbom'),
      ],
      action: (options: SetupWishes) =>
        untilEnded(async (ends) => {
          terminal.stdout.write(await parts.setup({ ...global(), ...options }, ends));
        }),
    },
    {
      name: 'install',
      description: 'make podvm a runtime of another program on this host',
      arguments: [['<program>', 'containerd, or k3s with its own containerd']],
      options: [
        flag('--dry-run', 'print what would be written, and write nothing'),
        flag('--restart', 'also restart it, by systemd, and run a pod there').conflicts('dryRun'),
      ],
      action: (program: string, options: { dryRun: boolean; restart: boolean }, itself: Command) =>
        untilEnded(async (ends) => {
          if (program !== 'containerd' && program !== 'k3s')
            itself.error(`error: cannot install into '${program}': only into containerd or k3s`);
          terminal.stdout.write(await parts.install(program, { ...global(), ...options }, ends));
        }),
    },
    {
      name: 'uninstall',
      description: 'end all pods, and remove what podvm added to this host',
      options: [flag('--state', 'also remove the state directory: images, and what set-up made')],
      action: (options: { state: boolean }) =>
        untilEnded(async (ends) => {
          terminal.stdout.write(await parts.uninstall({ ...global(), ...options }, ends));
        }),
    },
    ...hostCommands({ parts, global, exit, untilEnded, reach, withServer }),
  ];
}
