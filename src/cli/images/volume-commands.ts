import { Option } from 'commander';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type VolumeSummary, volumeSummarySchema } from '#api/volumes.ts';
import type { Client } from '../client.ts';
import type { CommandRow } from '../command-row.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import {
  type DetailOutput,
  detailOption,
  detailText,
  type ListForm,
  type Listing,
  listOptions,
  namespaceOptions,
  printList,
  watchList,
} from '../terminal/listing.ts';
import { type Choice, chooser } from '../pods/label-selector.ts';
import { forEachName } from '../pods/for-each-name.ts';
import { type Terminal, age, write } from '../terminal/terminal.ts';

interface VolumeSetting {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  /** Calls `use` with a client for what is stored. Starts nothing. */
  readonly withKnown: (use: (client: Client) => Promise<void>) => Promise<void>;
  /** Calls `use` until it or a signal ends it. */
  readonly untilEnded: (use: (ends: EndSignals) => Promise<void>) => Promise<void>;
}

/** The commands below `podvm volume`. */
export function volumeCommands({ terminal, exit, withKnown, untilEnded }: VolumeSetting): readonly CommandRow[] {
  return [
    {
      name: 'ls',
      description: 'list the volumes of PersistentVolumeClaims',
      options: [...listOptions(), ...namespaceOptions, new Option('-l, --selector <labels>').hideHelp()],
      isClient: true,
      action: ({ selector, ...options }: ListForm & Choice) => {
        if (selector !== undefined) throw withoutLabels();
        return untilEnded((ends) =>
          withKnown(async (client) => {
            const find = async () => await client.get('/v1/volumes', v.array(volumeSummarySchema));
            const listing = { find: async () => (await find()).filter(chooser(options)), ...volumeColumns };
            await watchList(listing, options, await printList(listing, options, terminal), terminal, ends.any);
          }),
        );
      },
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
            await forEachName(names, terminal, async (given) => {
              const { namespace, name } = await client.send('DELETE', pathOf(given), undefined, volumeSummarySchema);
              await write(terminal.stdout, `${namespace}/${name} removed\n`);
            }),
          ),
        ),
    },
  ];
}

const withoutLabels = () =>
  new PodvmError('invalid', 'Cannot list volumes with -l: volumes have no labels', {
    fix: 'Choose a namespace with -n, or the claims of files: `podvm get pvc -l LABELS`.',
  });

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

const volumeColumns: Omit<Listing<VolumeSummary>, 'find'> = {
  head: () => ['NAMESPACE', 'NAME', 'SIZE', 'USED', 'AGE', 'PODS'],
  rows: ({ namespace, name, sizeBytes, usedBytes, createdAt, pods }, _, nowMs) => [
    [...[namespace, name, mebibytes(sizeBytes), mebibytes(usedBytes), age(createdAt, nowMs)], pods.join(',') || '-'],
  ],
  names: ({ namespace, name }) => [`${namespace}/${name}`],
};

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
