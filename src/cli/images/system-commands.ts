import { Option } from 'commander';
import type { DiskUsage } from '#api/disk-usage.ts';
import type { Client } from '../client.ts';
import { type CommandRow, flag } from '../command-row.ts';
import { pruneOptions, type PruneOptions, pruneSystem } from './prune-commands.ts';
import { type DetailOutput, detailText } from '../terminal/listing.ts';
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
        new Option('-o, --output <format>', 'form of the output').choices(['table', 'json', 'yaml']).default('table'),
        flag('--json', 'the same as -o json'),
      ],
      action: ({ output, json }: { output: 'table' | DetailOutput; json: boolean }) =>
        withDiskUsage(async (usage) => {
          const form = json ? 'json' : output;
          await write(terminal.stdout, form === 'table' ? listOf(usage) : await detailText(usage, form));
        }),
    },
    {
      name: 'prune',
      description: 'remove the pods that have ended, and images that nothing uses',
      options: pruneOptions,
      action: (options: PruneOptions) => withNode((client) => pruneSystem(client, options, terminal)),
    },
  ];
}

const megabytes = (bytes: number) => `${(bytes / 1_000_000).toFixed(1)} MB`;

function listOf({ root, totalBytes, uses }: DiskUsage): string {
  const rows = uses.map(({ kind, name = '', bytes, isOld }) => [
    kind,
    megabytes(bytes).padStart(10),
    isOld ? `${name} (of an earlier set-up)` : name,
  ]);
  return table(['KIND', 'SIZE'.padStart(10), 'NAME'], [...rows, ['total', megabytes(totalBytes).padStart(10), root]]);
}
