import { Option } from 'commander';
import type { DiskUsage } from '#api/disk-usage.ts';
import type { Client } from '../client.ts';
import { type CommandRow, flag } from '../command-row.ts';
import { pruneOptions, type PruneOptions, pruneSystem } from './prune-commands.ts';
import { detailText, listOutputs, type ListForm } from '../terminal/listing.ts';
import { type Terminal, table, write } from '../terminal/terminal.ts';

/** Measures, and calls `use` with the result. */
type WithDiskUsage = (use: (usage: DiskUsage) => Promise<void>) => Promise<void>;

/** The commands below `podvm system`. */
export function systemCommands(
  withDiskUsage: WithDiskUsage,
  withNode: (use: (client: Client) => Promise<void>) => Promise<void>,
  terminal: Terminal,
): readonly CommandRow[] {
  return [
    {
      name: 'df',
      description: 'list what takes disk space in the state directory',
      options: [
        new Option('-o, --output <format>', 'form of the output')
          .choices(['table', 'wide', ...listOutputs])
          .default('table'),
        flag('--json', 'the same as -o json'),
      ],
      action: ({ output, json }: { output: ListForm['output']; json: boolean }) =>
        withDiskUsage(async (usage) => await write(terminal.stdout, await textOf(usage, json ? 'json' : output))),
    },
    {
      name: 'prune',
      description: 'remove the pods that have ended, and images that nothing uses',
      options: pruneOptions,
      action: (options: PruneOptions) => withNode((client) => pruneSystem(client, options, terminal)),
    },
  ];
}

async function textOf(usage: DiskUsage, form: ListForm['output']): Promise<string> {
  if (form === 'name') return usage.uses.map(({ kind, name }) => `${name ?? kind}\n`).join('');
  return form === 'table' || form === 'wide' ? listOf(usage, form === 'wide') : await detailText(usage, form);
}

const megabytes = (bytes: number) => `${(bytes / 1_000_000).toFixed(1)} MB`;

function listOf({ root, totalBytes, uses }: DiskUsage, isWide: boolean): string {
  const size = isWide ? (bytes: number) => String(bytes) : megabytes;
  const rows = uses.map(({ kind, name = '', bytes, isOld }) => [
    kind,
    size(bytes).padStart(10),
    isOld ? `${name} (of an earlier set-up)` : name,
  ]);
  const sum = ['total', size(totalBytes).padStart(10), root];
  return table(['KIND', (isWide ? 'BYTES' : 'SIZE').padStart(10), 'NAME'], [...rows, sum]);
}
