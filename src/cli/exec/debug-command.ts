import { type Command, Option } from 'commander';
import { imageDetailsSchema } from '#api/images.ts';
import { kindOf } from '#base/errors.ts';
import { type Client } from '../client.ts';
import { flag } from '../command-row.ts';
import { followWork } from '../images/image-commands.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { execCommand } from './exec-command.ts';
import { parseAfter } from '../parse-after.ts';

interface DebugFlags {
  readonly image?: string;
  readonly target?: string;
  readonly stdin: boolean;
  readonly tty: boolean;
}

/** The image of the examples: Debian's busybox, which needs no registry. */
const ownImage = 'localhost/podvm/base';

export const debugOptions: readonly Option[] = [
  new Option('--image <image>', `image with the tools; default: ${ownImage}, which has busybox`),
  new Option('--target <container>', 'container whose processes it sees; default: the first'),
  flag('-i, --stdin', 'pass standard input on; default on a terminal without a command'),
  flag('-t, --tty', 'give the command a terminal; default with -i'),
];

/** Runs a command, or a shell, in a new container beside those of a pod. Returns its exit code. */
export async function debugCommand(
  client: Client,
  pod: string,
  given: { readonly itself: Command; readonly words: readonly string[] },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const form = { argument: '[command...]', options: debugOptions, passesThrough: true };
  const after = parseAfter(given.itself, form, given.words);
  const { image = ownImage, target: container, ...flags } = after.opts<DebugFlags>();
  const isShell = after.args.length === 0 && terminal.stdin.isTTY;
  const stdin = flags.stdin || isShell;
  const tty = flags.tty || isShell;
  if (image === ownImage) await ensureOwnImage(client, terminal, signal);
  const command = after.args.length === 0 && image === ownImage ? ['sh'] : after.args;
  return await execCommand(client, { pod, container, command, tty, stdin, besideWith: image }, terminal);
}

/** Builds the image if the node does not have it. */
async function ensureOwnImage(client: Client, terminal: Terminal, signal: AbortSignal): Promise<void> {
  try {
    await client.get(
      `/v1/images/inspect?${new URLSearchParams({ reference: ownImage }).toString()}`,
      imageDetailsSchema,
    );
  } catch (error) {
    if (kindOf(error) !== 'notFound') throw error;
    await followWork(client, '/v1/images/build-base', {}, { terminal, signal, isQuiet: true });
  }
}
