import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type VolumeSummary, volumeSummarySchema } from '#api/volumes.ts';
import type { Client } from '../client.ts';
import type { CommandRow } from '../command-row.ts';
import {
  type DetailOutput,
  detailOption,
  detailText,
  type ListOutput,
  listText,
  namespaceOptions,
  outputOption,
} from '../terminal/listing.ts';
import { forEachPod } from '../pods/life-commands.ts';
import { type Terminal, age, table, write } from '../terminal/terminal.ts';

interface VolumeSetting {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  /** Calls `use` with a client for what is stored. Starts nothing. */
  readonly withKnown: (use: (client: Client) => Promise<void>) => Promise<void>;
}

interface ListOptions {
  readonly output: 'table' | ListOutput;
  readonly namespace?: string;
}

/** The commands below `podvm volume`. */
export function volumeCommands({ terminal, exit, withKnown }: VolumeSetting): readonly CommandRow[] {
  return [
    {
      name: 'ls',
      description: 'list the volumes of PersistentVolumeClaims',
      options: [outputOption('table'), ...namespaceOptions],
      isClient: true,
      action: ({ output, namespace }: ListOptions) =>
        withKnown(async (client) => {
          const all = await client.get('/v1/volumes', v.array(volumeSummarySchema));
          const volumes = all.filter((volume) => namespace === undefined || volume.namespace === namespace);
          const text = output === 'table' ? tableOf(volumes) : await listText(volumes, output, namesOf);
          await write(terminal.stdout, text);
        }),
    },
    {
      name: 'inspect',
      description: 'print all details of a volume',
      arguments: [['<volume>', 'NAME or NAMESPACE/NAME']],
      options: [detailOption()],
      isClient: true,
      action: (name: string, { output }: { output: DetailOutput }) =>
        withKnown(async (client) => {
          const volume = await client.get(pathOf(name), volumeSummarySchema);
          await write(terminal.stdout, await detailText(volume, output));
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

/** Path of a volume; a name alone is one of the namespace `default`. Errors: `invalid`. */
function pathOf(given: string): string {
  const parts = given.split('/');
  if (parts.length > 2 || parts.includes('')) {
    throw new PodvmError('invalid', `Cannot find a volume: expected NAME or NAMESPACE/NAME, got ${given}`, {
      fix: 'See `podvm volume ls` for the names.',
    });
  }
  return `/v1/volumes/${['default', ...parts].slice(-2).map(encodeURIComponent).join('/')}`;
}

const namesOf = ({ namespace, name }: VolumeSummary) => [`${namespace}/${name}`];

function tableOf(volumes: readonly VolumeSummary[]): string {
  const rows = volumes.map(({ namespace, name, sizeBytes, usedBytes, createdAt, pods }) => [
    ...[namespace, name, mebibytes(sizeBytes), mebibytes(usedBytes)],
    age(createdAt, Date.now()),
    pods.join(',') || '-',
  ]);
  return table(['NAMESPACE', 'NAME', 'SIZE', 'USED', 'AGE', 'PODS'], rows);
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
