import { PodvmError } from '#base/errors.ts';
import { podDetailsSchema } from '#api/pods.ts';
import type { Client } from '../client.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import { OutputPrinter } from '../terminal/output-printer.ts';
import { podPath } from '../pods/pod-name.ts';
import { detachedLine, RunSession } from './run-command.ts';
import { createRunInput } from './run-input.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

export interface AttachOptions {
  readonly container?: string;
  /** False with `--no-stdin`. */
  readonly stdin: boolean;
}

/**
 * Prints a pod's output, and passes input to a container that takes it, until the pod ends. Ctrl-C, or Ctrl-P Ctrl-Q if
 * the container has the terminal, ends only this client. Returns the pod's exit code, or 0 if the client ended first.
 */
export async function attachCommand(
  client: Client,
  pod: string,
  options: AttachOptions,
  terminal: Terminal,
  ends: EndSignals,
): Promise<number> {
  const { namespace, name, containers } = await client.get(podPath(pod), podDetailsSchema);
  const container = containers.find((it) =>
    options.container === undefined ? it.kind === 'main' : it.name === options.container,
  );
  if (container === undefined) {
    throw new PodvmError('notFound', `Cannot find container ${options.container ?? ''} in pod ${name}`, {
      fix: `Give one of these with -c: ${containers.map((it) => it.name).join(', ')}.`,
    });
  }
  const takesInput = options.stdin && container.stdin === true;
  const wish = { takesInput, hasTerminal: container.tty === true && terminal.stdin.isTTY };
  const { promise: detached, resolve } = Promise.withResolvers<'detached'>();
  using input = createRunInput(client, wish, terminal, () => resolve('detached'));
  using undo = new DisposableStack();
  const socket = client.open(`${podPath(`${namespace}/${name}`)}/attach`);
  undo.defer(() => socket.terminate());
  const printer = new OutputPrinter(terminal, terminal.hasColour);
  undo.defer(() => void printer.flush());
  undo.defer(ends.listen(() => resolve('detached')));
  socket.once('open', () => input.begin(`${namespace}/${name}`, container.name));
  const session = new RunSession(printer, { verbose: false, isOfImage: true }, terminal, input);
  const ended = await Promise.race([session.follow(socket), detached]);
  if (ended !== 'detached') return ended;
  const start = wish.hasTerminal ? '\n' : ''; // the program may have left the cursor in a line
  await write(terminal.stderr, input.lines(`${start}${detachedLine(name)}`));
  return 0;
}
