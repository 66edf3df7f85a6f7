import { Option } from 'commander';
import type { RunRequestInput } from '#api/run.ts';
import type { Client } from '../client.ts';
import type { CommandRow } from '../command-row.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import { loginsFor } from '../images/login-commands.ts';
import { OutputPrinter } from '../terminal/output-printer.ts';
import type { ProgramParts, Purpose } from '../program-parts.ts';
import { manifestsIn, readFiles } from './read-files.ts';
import { collect } from './pod-flags.ts';
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
      new Option('--network <mode>', 'network of the pods').choices(['cni', 'none']).default('cni'),
    ],
    async action({ file, network }: { file: readonly string[]; network: 'cni' | 'none' }) {
      const files = await readFiles(await manifestsIn(file), terminal);
      await withServer('pods', async (client, ends) => {
        const logins = verb === 'apply' ? await loginsFor(() => imagesOf(files, ends.any), parts, ends.any) : {};
        exit(await talk(client, verb, { files, network, ...logins }, terminal, ends));
      });
    },
  }));
}

/** Sends the files, prints what happens to their objects, and returns the exit code. Ctrl-C ends the work. */
async function talk(
  client: Client,
  verb: Verb,
  request: RunRequestInput,
  terminal: Terminal,
  ends: EndSignals,
): Promise<number> {
  using input = createRunInput(client, undefined, terminal);
  const socket = client.open(`/v1/${verb}`);
  const leave = ends.listen(() => socket.terminate());
  try {
    const printer = new OutputPrinter(terminal, terminal.hasColour);
    const session = new RunSession(printer, { verbose: false, isOfImage: false }, terminal, input);
    socket.once('open', () => socket.send(JSON.stringify(request)));
    return await session.follow(socket);
  } catch (error) {
    if (ends.exitCode !== undefined) return ends.exitCode;
    throw error;
  } finally {
    leave();
  }
}
