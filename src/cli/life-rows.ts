import { Option } from 'commander';
import { attachCommand, type AttachOptions } from './run/attach-command.ts';
import type { Client } from './client.ts';
import { type CommandRow, flag } from './command-row.ts';
import { copyCommand } from './copy/copy-command.ts';
import type { EndSignals } from './terminal/end-signals.ts';
import { eventsCommand, type EventsOptions } from './pods/events-command.ts';
import { forEachName } from './pods/for-each-name.ts';
import { pauseCommand, removeCommand, renameCommand, startCommand, waitCommand } from './pods/life-commands.ts';
import { namespaceOptions, selectorOption } from './terminal/listing.ts';
import { parseForwardedPort, portForwardCommand } from './pods/port-forward-command.ts';
import { killCommand, type KillOptions } from './pods/kill-command.ts';
import type { Purpose } from './program-parts.ts';
import type { Terminal } from './terminal/terminal.ts';
import { topCommand, type TopOptions } from './pods/top-command.ts';

/** Parts that these commands share with the others. */
export interface LifeSetting {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  /** Calls `use` with a client of a node, which is started if none runs. */
  readonly withServer: (purpose: Purpose, use: (client: Client, ends: EndSignals) => Promise<void>) => Promise<void>;
  /** Calls `use` with a client for running and ended pods. Starts nothing. */
  readonly withKnown: (use: (client: Client) => Promise<void>) => Promise<void>;
  /** Calls `use` with a client of the running node, until a signal. */
  readonly withRunning: (use: (client: Client, ends: EndSignals) => Promise<void>) => Promise<void>;
}

const pod = ['<pod>', 'NAME or NAMESPACE/NAME'] as const;
const pods = ['<pods...>', 'NAME or NAMESPACE/NAME'] as const;

/** Commands that restart, remove and reach existing pods. */
export function lifeCommands(setting: LifeSetting): readonly CommandRow[] {
  const { terminal, exit, withServer, withKnown, withRunning } = setting;
  return [
    {
      name: 'start',
      description: 'run pods again that have ended',
      arguments: [pods],
      action: (names: string[]) =>
        withServer('pods', async (client) =>
          exit(await forEachName(names, terminal, (name) => startCommand(client, name, 'start', {}, terminal))),
        ),
    },
    {
      name: 'restart',
      description: 'stop pods and run them again',
      arguments: [pods],
      options: [new Option('-t, --grace <seconds>', "grace period; default: the pod's terminationGracePeriodSeconds")],
      action: (names: string[], options: { grace?: string }) =>
        withServer('pods', async (client) =>
          exit(await forEachName(names, terminal, (name) => startCommand(client, name, 'restart', options, terminal))),
        ),
    },
    {
      name: 'rm',
      description: 'remove pods that have ended, with their logs',
      arguments: [pods],
      options: [flag('-f, --force', 'kill a pod that runs')],
      isClient: true,
      action: (names: string[], options: { force: boolean }) =>
        withKnown(async (client) =>
          exit(await forEachName(names, terminal, (name) => removeCommand(client, name, options, terminal))),
        ),
    },
    {
      name: 'wait',
      description: 'wait until pods have ended, and print their exit codes',
      arguments: [pods],
      isClient: true,
      action: (names: string[]) =>
        withKnown(async (client) =>
          exit(await forEachName(names, terminal, (name) => waitCommand(client, name, terminal))),
        ),
    },
    {
      name: 'rename',
      description: 'give a pod that has ended another name',
      arguments: [pod, ['<name>', 'new name, in the same namespace']],
      isClient: true,
      action: (name: string, other: string) => withKnown((client) => renameCommand(client, name, other, terminal)),
    },
    {
      name: 'kill',
      description: 'send a signal to the containers of pods; a container that ends may be restarted',
      arguments: [pods],
      options: [
        new Option('-s, --signal <signal>', 'name or number').default('KILL'),
        new Option('-c, --container <name>', 'only to this container'),
      ],
      action: (names: string[], options: KillOptions) =>
        withRunning(async (client) =>
          exit(await forEachName(names, terminal, (name) => killCommand(client, name, options, terminal))),
        ),
    },
    pauseRow('pause', 'freeze pods: their programs stand still, and their memory stays', setting),
    pauseRow('unpause', 'let paused pods continue', setting),
    {
      name: 'events',
      description: 'print the events of pods, the oldest first',
      arguments: [['[pod]', 'NAME or NAMESPACE/NAME; default: all']],
      options: [
        flag('-f, --follow', 'continue with new events'),
        flag('-w, --watch', 'the same'),
        selectorOption(),
        ...namespaceOptions,
        new Option(
          '-o, --output <format>',
          'form of the output; wide and JSON have one line for each, YAML is one list, name has the pods',
        )
          .choices(['text', 'wide', 'name', 'json', 'yaml'])
          .default('text'),
        flag('--json', 'the same as -o json'),
      ],
      isClient: true,
      action: (name: string | undefined, options: EventsOptions) =>
        withKnown((client) => eventsCommand(client, name, options, terminal)),
    },
    {
      name: 'attach',
      description: 'follow the output of a pod, and pass input on; Ctrl-C leaves it running',
      arguments: [pod],
      options: [
        new Option('-c, --container <name>', 'container that gets the input, if the pod has several'),
        new Option('--no-stdin', 'pass no input on'),
      ],
      action: (name: string, options: AttachOptions) =>
        withRunning(async (client, ends) => exit(await attachCommand(client, name, options, terminal, ends))),
    },
    usageRow('top', withRunning, terminal),
    usageRow('stats', withRunning, terminal),
    {
      name: 'cp',
      description: 'copy files and directories between a container and this host',
      arguments: [
        ['<from>', 'POD:PATH or PATH; - is a tar archive on standard input'],
        ['<to>', 'PATH or POD:PATH; - is a tar archive on standard output'],
      ],
      options: [new Option('-c, --container <name>', 'container, if the pod has several')],
      action: (from: string, to: string, options: { container?: string }) =>
        withRunning((client, ends) => copyCommand(client, [from, to], options, { terminal, signal: ends.any })),
    },
    {
      name: 'port-forward',
      description: 'serve ports of this host that lead to ports of a pod, until Ctrl-C',
      arguments: [pod, ['<ports...>', '[LOCAL:]REMOTE; :REMOTE takes any free local port']],
      options: [new Option('--address <ip>', 'address to listen on').default('127.0.0.1')],
      action: (name: string, ports: string[], { address }: { address: string }) =>
        withRunning((client, ends) =>
          portForwardCommand(client, name, { ports: ports.map(parseForwardedPort), address }, terminal, ends),
        ),
    },
  ];
}

const pauseRow = (
  name: 'pause' | 'unpause',
  description: string,
  { terminal, exit, withRunning }: LifeSetting,
): CommandRow => ({
  name,
  description,
  arguments: [pods],
  action: (names: string[]) =>
    withRunning(async (client) =>
      exit(await forEachName(names, terminal, (pod) => pauseCommand(client, pod, name, terminal))),
    ),
});

/** Makes the command that shows the usage of pods. `name`: podvm's or docker's name for it. */
const usageRow = (name: string, withRunning: LifeSetting['withRunning'], terminal: Terminal): CommandRow => ({
  name,
  description: 'show what pods use, in the guest and on the host',
  arguments: [['[pods...]', 'NAME or NAMESPACE/NAME; default: all']],
  options: [
    new Option('--sort <column>', 'order').choices(['cpu', 'memory', 'name']).default('cpu'),
    new Option('--no-stream', 'print once, also on a terminal'),
    selectorOption(),
    ...namespaceOptions,
    new Option('-o, --output <format>', 'form of the output; all but the table are printed once')
      .choices(['table', 'wide', 'name', 'json', 'yaml'])
      .default('table'),
  ],
  action: (words: string[], options: TopOptions) =>
    withRunning((client, ends) => topCommand(client, words, options, terminal, ends)),
});
