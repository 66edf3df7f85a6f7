import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import {
  type ImageSummary,
  type LoadRequestInput,
  type PullRequestInput,
  type TagRequestInput,
  imageDetailsSchema,
  imageProgressSchema,
  imageSummarySchema,
  untaggedSchema,
} from '#api/images.ts';
import { type Client, connectionClosed, fromErrorBody } from '../client.ts';
import { type CommandRow, flag } from '../command-row.ts';
import { lines } from '../terminal/lines.ts';
import {
  type DetailOutput,
  detailOption,
  detailText,
  type ListForm,
  type Listing,
  listOptions,
  printList,
  watchList,
} from '../terminal/listing.ts';
import { forEachName } from '../pods/for-each-name.ts';
import { loginsFor } from './login-commands.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import type { ProgramParts } from '../program-parts.ts';
import { pruneImages, pruneOptions, type PruneOptions } from './prune-commands.ts';
import { ProgressLine } from '../terminal/progress-line.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

/**
 * Provides a client while a process serves it. `storedImages` is for commands on existing images, which need no set-up.
 */
type WithClient = (
  purpose: 'images' | 'storedImages',
  use: (client: Client, ends: EndSignals) => Promise<void>,
) => Promise<void>;

interface LoadFlags {
  readonly name?: string;
  readonly quiet: boolean;
  readonly input?: string;
}

interface PullFlags {
  readonly insecure: boolean;
  readonly authfile?: string;
  readonly quiet: boolean;
}

const nameOrId = ['<reference>', 'name or id'] as const;

/** Options of other lists. */
const ofPods = ['-l, --selector <labels>', '-n, --namespace <namespace>', '-A, --all-namespaces'].map((flags) =>
  new Option(flags).hideHelp(),
);

const areOfNode = (flag: string) =>
  new PodvmError('invalid', `Cannot list images with ${flag}: images are those of the whole node`, {
    fix: `Leave ${flag} out, which chooses pods: \`podvm ps ${flag}\`.`,
  });

/** Makes the command that lists images. `name`: podvm's or docker's name for it. */
export const imageListRow = (name: string, withClient: WithClient, terminal: Terminal): CommandRow => ({
  name,
  description: 'list the images',
  options: [flag('-a, --all', 'list all images, which is the default'), ...listOptions(), ...ofPods],
  action: ({ selector, namespace, ...form }: ListForm & { selector?: string; namespace?: string }) => {
    if (selector !== undefined) throw areOfNode('-l');
    if (namespace !== undefined) throw areOfNode('-n');
    return withClient('storedImages', async (client, ends) => {
      const find = async () => await client.get('/v1/images', v.array(imageSummarySchema));
      const listing = { find, ...imageColumns };
      await watchList(listing, form, await printList(listing, form, terminal), terminal, ends.any);
    });
  },
});

/** The commands below `podvm image`. */
export function imageCommands(
  withClient: WithClient,
  parts: Pick<ProgramParts, 'userLogins' | 'terminal'>,
  exit: (code: number) => void,
): readonly CommandRow[] {
  const { terminal } = parts;
  const follow = (path: string, request: unknown, quiet: boolean) =>
    withClient('images', (client, ends) => followWork(client, path, request, { terminal, signal: ends.any, quiet }));
  return [
    {
      name: 'pull',
      description: 'pull an image from a registry',
      arguments: [['<reference>', 'for example nginx:1.27 or registry.example/team/app@sha256:...']],
      options: [
        flag('--insecure', 'allow plain HTTP and any certificate'),
        new Option('--authfile <file>', "logins in the format of docker's config.json; default: those of podvm login"),
        flag('-q, --quiet', 'print only the name of the image'),
      ],
      action(reference: string, { insecure, authfile, quiet }: PullFlags) {
        return withClient('images', async (client, ends) => {
          const images = () => Promise.resolve([reference]);
          const file = authfile === undefined ? undefined : resolve(authfile);
          const logins = await loginsFor(images, parts, ends.any, file);
          const request: PullRequestInput = { reference, insecure, ...logins };
          await followWork(client, '/v1/images/pull', request, { terminal, signal: ends.any, quiet });
        });
      },
    },
    {
      name: 'load',
      description: 'load images from a Docker or OCI archive, or from a directory with an OCI layout',
      arguments: [['[path]', 'archive or directory']],
      options: [
        new Option('--name <reference>', 'name for an image without a name in the archive'),
        flag('-q, --quiet', 'print only the names of the images'),
        new Option('-i, --input <path>', 'the same as the argument, as docker has it'),
      ],
      action(argument: string | undefined, { name, quiet, input }: LoadFlags, itself: Command) {
        const path = argument ?? input ?? itself.error("error: missing required argument 'path'");
        const reference = name === undefined ? {} : { reference: name };
        return follow('/v1/images/load', { path: resolve(path), ...reference } satisfies LoadRequestInput, quiet);
      },
    },
    {
      name: 'build-base',
      description: "build the examples' image from Debian's busybox, without a registry",
      options: [flag('-q, --quiet', 'print only the name of the image')],
      action: ({ quiet }: { quiet: boolean }) => follow('/v1/images/build-base', {}, quiet),
    },
    imageListRow('ls', withClient, terminal),
    {
      name: 'inspect',
      description: 'print all details of an image',
      arguments: [nameOrId],
      options: [detailOption()],
      action: (reference: string, { output }: { output: DetailOutput }) =>
        withClient('storedImages', async (client) => {
          const image = await client.get(`/v1/images/inspect?${query(reference)}`, imageDetailsSchema);
          await write(terminal.stdout, await detailText(image, output));
        }),
    },
    {
      name: 'tag',
      description: 'add a name to an image',
      arguments: [nameOrId, ['<name>', 'for example team/app:stable; the default tag is latest']],
      action: (reference: string, name: string) =>
        withClient('storedImages', async (client) => {
          const request: TagRequestInput = { reference, name };
          await client.send('POST', '/v1/images/tag', request, imageSummarySchema);
        }),
    },
    {
      name: 'rm',
      description: 'remove names of images, and an image with its last name; an id removes the image and all its names',
      arguments: [['<references...>', 'name or id']],
      action: (references: string[]) =>
        withClient('storedImages', async (client) =>
          exit(await forEachName(references, terminal, (reference) => removeImage(client, reference, terminal))),
        ),
    },
    {
      name: 'prune',
      description: 'remove images without a name, or all that no pod uses',
      options: pruneOptions,
      action: (options: PruneOptions) => withClient('storedImages', (client) => pruneImages(client, options, terminal)),
    },
  ];
}

async function removeImage(client: Client, reference: string, { stdout }: Terminal): Promise<void> {
  const { untagged, removed } = await client.send(
    'DELETE',
    `/v1/images?${query(reference)}`,
    undefined,
    untaggedSchema,
  );
  const lines = [
    ...untagged.map((name) => `${name} untagged`),
    ...(removed === undefined ? [] : [`${removed} removed`]),
  ];
  await write(stdout, `${lines.join('\n')}\n`);
}

const query = (reference: string) => `reference=${encodeURIComponent(reference)}`;

const imageColumns: Omit<Listing<ImageSummary>, 'find'> = {
  head: (isWide) => ['REFERENCE', 'IMAGE ID', 'SIZE', ...(isWide ? ['DIGESTS'] : [])],
  rows: (image, isWide) =>
    (image.references.length > 0 ? image.references : [tagless(image)]).map((reference) => [
      reference,
      image.id.replace('sha256:', '').slice(0, 12),
      `${(image.sizeBytes / 1_000_000).toFixed(1)} MB${image.damaged === undefined ? '' : `, damaged: ${image.damaged}`}`,
      ...(isWide ? [image.digests.join(',') || '-'] : []),
    ]),
  names: ({ references, id }) => (references.length > 0 ? references : [id]),
};

/** Display name of an image without a tag. It can be removed by its id, or by a digest that `inspect` shows. */
function tagless({ digests }: ImageSummary): string {
  const [name] = digests.map((digest) => digest.split('@')[0]);
  return name === undefined ? '<none>' : `${name}:<none>`;
}

interface WorkParts {
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  /** Does not print the names of the images that it has made. */
  readonly isQuiet?: boolean;
  /** Says nothing of its progress. */
  readonly quiet?: boolean;
}

/** Starts a long operation and shows its progress. */
export async function followWork(
  client: Client,
  path: string,
  request: unknown,
  { terminal, signal, isQuiet = false, quiet = false }: WorkParts,
): Promise<void> {
  const { stderr } = terminal;
  const line = new ProgressLine(terminal);
  const show = (message: string) => (stderr.isTTY ? line.show(message) : write(stderr, `podvm: ${message}\n`));
  await using _ = { [Symbol.asyncDispose]: () => line.clear() };
  for await (const text of lines(await client.stream('POST', path, request, signal))) {
    const progress = v.parse(imageProgressSchema, JSON.parse(text));
    if (progress.message !== undefined && !quiet) await show(progress.message);
    if (progress.error !== undefined) throw fromErrorBody(progress.error);
    if (progress.done !== undefined) {
      await line.clear();
      for (const name of isQuiet ? [] : progress.done.flatMap(({ names }) => names))
        await write(terminal.stdout, `${name}\n`);
      return;
    }
  }
  throw connectionClosed('finish the operation');
}
