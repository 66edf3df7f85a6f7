import { Option } from 'commander';
import type { RunRequestInput } from '#api/run.ts';
import type { Client } from '../client.ts';
import { type CommandRow, flag } from '../command-row.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import { loginsFor } from '../images/login-commands.ts';
import { OutputPrinter } from '../terminal/output-printer.ts';
import type { ProgramParts, Purpose } from '../program-parts.ts';
import { manifestsIn, readFiles } from './read-files.ts';
import { networkOption } from './network-option.ts';
import { collect } from './pod-flags.ts';
import { PullProgress } from './pull-progress.ts';
import { RunSession } from './run-command.ts';
import { createRunInput } from './run-input.ts';
import type { Terminal } from '../terminal/terminal.ts';

interface ObjectsSetting {
  readonly parts: ProgramParts;
  readonly exit: (code: number) => void;
  readonly withServer: (purpose: Purpose, use: (client: Client, ends: EndSignals) => Promise<void>) => Promise<void>;
  /** Images that the files name; none for files that the node refuses. */
  readonly imagesOf: ProgramParts['namedImages'];
}

const verbs = {
  apply: 'create what files describe, and replace pods whose description has changed',
  delete: 'end the pods that files describe; volumes are kept',
  diff: 'show what apply would change; exit code 1 if there are changes',
} as const;
type Verb = keyof typeof verbs;

/** Commands about the objects of files. */
export function objectsCommands({ parts, exit, withServer, imagesOf }: ObjectsSetting): readonly CommandRow[] {
  const { terminal } = parts;
  return (Object.keys(verbs) as Verb[]).map((verb) => ({
    name: verb,
    description: verbs[verb],
    options: [
      new Option(
        '-f, --file <file>',
        'YAML file, its URL, or a directory of them; - reads standard input; can be repeated',
      )
        .argParser(collect)
        .makeOptionMandatory(),
      networkOption(),
      ...(verb === 'apply' ? [flag('-q, --quiet', 'say nothing of pulls that take long')] : []),
    ],
    async action({
      file,
      network,
      quiet = false,
    }: {
      file: readonly string[];
      network: 'cni' | 'none';
      quiet?: boolean;
    }) {
      const files = await readFiles(await manifestsIn(file), terminal);
      await withServer('pods', async (client, ends) => {
        const logins = verb === 'apply' ? await loginsFor(() => imagesOf(files, ends.any), parts, ends.any) : {};
        const imageNames = quiet || verb !== 'apply' ? undefined : () => imagesOf(files, ends.any);
        exit(await talk(client, verb, { files, network, ...logins }, { terminal, ends, imageNames }));
      });
    },
  }));
}

interface TalkParts {
  readonly terminal: Terminal;
  readonly ends: EndSignals;
  /** Images whose pulls are shown; undefined: none. */
  readonly imageNames: (() => Promise<readonly string[]>) | undefined;
}

/** Sends the files, prints what happens to their objects, and returns the exit code. Ctrl-C ends the work. */
async function talk(
  client: Client,
  verb: Verb,
  request: RunRequestInput,
  { terminal, ends, imageNames }: TalkParts,
): Promise<number> {
  using input = createRunInput(client, undefined, terminal);
  const socket = client.open(`/v1/${verb}`);
  const leave = ends.listen(() => socket.terminate());
  try {
    const printer = new OutputPrinter(terminal, terminal.hasColour);
    await using progress = imageNames && new PullProgress(client, imageNames, terminal);
    const session = new RunSession(printer, { verbose: false, isOfImage: false, progress }, terminal, input);
    socket.once('open', () => socket.send(JSON.stringify(request)));
    return await session.follow(socket);
  } catch (error) {
    if (ends.exitCode !== undefined) return ends.exitCode;
    throw error;
  } finally {
    leave();
  }
}
