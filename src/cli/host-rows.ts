import { type Command, Option } from 'commander';
import type { Client } from './client.ts';
import { type CommandRow, flag } from './command-row.ts';
import { completion, shells } from './completion.ts';
import { doctorCommand } from './node/doctor-command.ts';
import { infoCommand } from './node/info-command.ts';
import { supportFiles } from './node/support-files.ts';
import { systemCommands } from './images/system-commands.ts';
import type { EndSignals } from './terminal/end-signals.ts';
import { type DetailOutput, detailText } from './terminal/listing.ts';
import type { Purpose, Setting, SupportWishes } from './program-parts.ts';
import { write } from './terminal/terminal.ts';
import { versionCommand } from './version-command.ts';

/** Parts that these commands share with the others. */
interface HostSetting extends Setting {
  /** Returns a client of the running node, after starting one if pods have outlived theirs. */
  readonly reach: (signal?: AbortSignal) => Promise<Client>;
  /** Calls `use` with a client of a node, which is started if none runs. */
  readonly withServer: (purpose: Purpose, use: (client: Client, ends: EndSignals) => Promise<void>) => Promise<void>;
}

type SupportOptions = Omit<SupportWishes, 'ofNode' | 'output'> & Partial<Pick<SupportWishes, 'output'>>;

interface DoctorOptions {
  readonly output: 'text' | DetailOutput;
  readonly json: boolean;
  readonly accelerator?: 'kvm';
  readonly config?: string;
}

/** Commands that examine this host and its node. */
export function hostCommands({
  parts,
  global,
  exit,
  untilEnded,
  reach,
  withServer,
}: HostSetting): readonly CommandRow[] {
  const { terminal } = parts;
  return [
    {
      name: 'doctor',
      description: 'check this host, or a pod of any owner from outside and inside, with a fix for each problem',
      arguments: [['[pod]', 'NAME or NAMESPACE/NAME; default: the host']],
      options: [
        new Option('-o, --output <format>', 'form of the output').choices(['text', 'json', 'yaml']).default('text'),
        flag('--json', 'print JSON'),
        new Option('--accelerator <name>', 'check only hardware virtualisation, step by step').choices(['kvm']),
        new Option('--config <file>', 'settings file of the daemon, which is checked with them'),
      ],
      action: (name: string | undefined, { output, ...options }: DoctorOptions, itself: Command) =>
        untilEnded(async (ends) => {
          const form = options.json ? 'json' : output;
          if (name !== undefined) {
            if (options.accelerator !== undefined || options.config !== undefined)
              itself.error('error: specify either a pod, or --accelerator and --config');
            return exit(await doctorCommand(await reach(ends.any), name, form, terminal, ends.any));
          }
          const { text, isHealthy } = await parts.doctor({ ...global(), ...options, json: form !== 'text' }, ends);
          await write(terminal.stdout, form === 'yaml' ? await detailText(JSON.parse(text), form) : text);
          exit(isHealthy ? 0 : 1);
        }),
    },
    {
      name: 'support-bundle',
      description: 'write a file for a bug report: versions, settings, state, logs of the node; no secrets',
      options: [
        new Option('-o, --output <file>', 'file to write; default: a new one in this directory'),
        flag('--logs', 'also the last lines of each container, with whatever it wrote'),
        new Option('--config <file>', 'settings file of the daemon'),
      ],
      action: ({ output = `podvm-support-${Date.now()}.tar.gz`, ...options }: SupportOptions) =>
        untilEnded(async (ends) => {
          const ofNode = await supportFiles(await reach(ends.any), options, ends.any);
          await write(terminal.stdout, await parts.supportBundle({ ...global(), ...options, output, ofNode }, ends));
        }),
    },
    {
      name: 'system',
      description: 'show what podvm takes of this host, and free what nothing uses',
      commands: systemCommands(
        (use) => untilEnded(async (ends) => await use(await parts.diskUsage(global(), ends))),
        (use) => withServer('pods', use),
        terminal,
      ),
    },
    {
      name: 'completion',
      description: 'print the completion of command lines for a shell',
      readsOthers: true,
      arguments: [['<shell>', shells.join(', ')]],
      isClient: true,
      action: async (shell: string, _: object, itself: Command) => {
        const wanted = shells.find((known) => known === shell);
        if (wanted === undefined)
          return itself.error(`error: cannot complete for '${shell}': only for ${shells.join(', ')}`);
        await write(terminal.stdout, completion(itself.parent ?? itself, wanted));
      },
    },
    {
      name: 'info',
      description: 'show whether a node runs, its pods, images and room, and what this podvm is made of',
      options: [
        new Option('-o, --output <format>', 'form of the output').choices(['text', 'json', 'yaml']).default('text'),
      ],
      isClient: true,
      action: async ({ output }: { output: 'text' | DetailOutput }) => {
        const setting = { socketPath: parts.socketPath(global()), versions: await parts.versions(global()) };
        await infoCommand(await reach(), setting, output, terminal);
      },
    },
    {
      name: 'version',
      description: 'print the versions of the program, its formats, and what set-up made',
      options: [
        new Option('-o, --output <format>', 'form of the output').choices(['text', 'json', 'yaml']).default('text'),
      ],
      isClient: true,
      action: async ({ output }: { output: 'text' | DetailOutput }) =>
        versionCommand(await parts.versions(global()), output, terminal),
    },
  ];
}
