import { Option } from 'commander';
import * as v from 'valibot';
import { type VolumeSummary, volumeSummarySchema } from '#api/volumes.ts';
import type { Client } from './client.ts';
import type { CommandRow } from './command-row.ts';
import { forEachPod } from './life-commands.ts';
import { type Terminal, age, table, write } from './terminal.ts';

interface VolumeSetting {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  /** Calls `use` with a client for what is stored. Starts nothing. */
  readonly withKnown: (use: (client: Client) => Promise<void>) => Promise<void>;
}

const volumeOutputs = ['table', 'name', 'json'] as const;
type VolumeOutput = (typeof volumeOutputs)[number];

/** The commands below `podvm volume`. */
export function volumeCommands({ terminal, exit, withKnown }: VolumeSetting): readonly CommandRow[] {
  return [
    {
      name: 'ls',
      description: 'list the volumes of PersistentVolumeClaims',
      options: [new Option('-o, --output <format>', 'form of the output').choices(volumeOutputs).default('table')],
      isClient: true,
      action: ({ output }: { output: VolumeOutput }) =>
        withKnown(async (client) =>
          write(terminal.stdout, textOf(await client.get('/v1/volumes', v.array(volumeSummarySchema)), output)),
        ),
    },
    {
      name: 'inspect',
      description: 'print all details of a volume as JSON',
      arguments: [['<volume>', 'NAME or NAMESPACE/NAME']],
      isClient: true,
      action: (name: string) =>
        withKnown(async (client) => {
          const volume = await client.get(pathOf(name), volumeSummarySchema);
          await write(terminal.stdout, `${JSON.stringify(volume, null, 2)}\n`);
        }),
    },
    {
      name: 'rm',
      description: 'remove volumes with their data',
      arguments: [['<volumes...>', 'NAME or NAMESPACE/NAME']],
      isClient: true,
      action: (names: string[]) =>
        withKnown(async (client) =>
          exit(
            await forEachPod(names, terminal, async (given) => {
              const { namespace, name } = await client.send('DELETE', pathOf(given), undefined, volumeSummarySchema);
              await write(terminal.stdout, `${namespace}/${name} removed\n`);
            }),
          ),
        ),
    },
  ];
}

/** Path of a volume; a name alone is one of the namespace `default`. */
function pathOf(given: string): string {
  const [namespace, name] = given.includes('/') ? given.split('/', 2) : ['default', given];
  return `/v1/volumes/${encodeURIComponent(namespace ?? '')}/${encodeURIComponent(name ?? '')}`;
}

function textOf(volumes: readonly VolumeSummary[], output: VolumeOutput): string {
  if (output === 'json') return `${JSON.stringify(volumes, null, 2)}\n`;
  if (output === 'name') return volumes.map(({ namespace, name }) => `${namespace}/${name}\n`).join('');
  const rows = volumes.map(({ namespace, name, sizeBytes, usedBytes, createdAt, pods }) => [
    ...[namespace, name, mebibytes(sizeBytes), mebibytes(usedBytes)],
    age(createdAt, Date.now()),
    pods.join(',') || '-',
  ]);
  return table(['NAMESPACE', 'NAME', 'SIZE', 'USED', 'AGE', 'PODS'], rows);
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
