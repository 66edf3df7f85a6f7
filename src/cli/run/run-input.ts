import type { Client } from '../client.ts';
import { podPath } from '../pods/pod-name.ts';
import { followSize, makeRaw, pumpInput } from '../terminal/terminal-input.ts';
import type { Terminal } from '../terminal/terminal.ts';

/** Streams of this process that the container of an image gets. */
export interface InputWish {
  /** Standard input. */
  readonly takesInput: boolean;
  /** The container has a terminal. If it takes input as well, this process's terminal is made raw for it. */
  readonly hasTerminal: boolean;
}

/** Passes input to the container of a run, from each of its starts to its end. Disposing restores the terminal. */
export interface RunInput extends Disposable {
  /** Called when the container runs. */
  begin(pod: string, container: string): void;
  /** Converts line ends for the terminal, which needs carriage returns while it is raw. */
  lines(text: string): string;
}

/** `wish`: undefined if the containers get no input. `leave`: called when a user of the terminal wants to detach from it. */
export function createRunInput(
  client: Client,
  wish: InputWish | undefined,
  terminal: Terminal,
  leave?: () => void,
): RunInput {
  const { takesInput, hasTerminal } = wish ?? { takesInput: false, hasTerminal: false };
  const lendsTerminal = takesInput && hasTerminal;
  let current: DisposableStack | undefined;
  const end = () => {
    current?.dispose();
    current = undefined;
  };
  return {
    lines: (text) => (lendsTerminal && current?.disposed === false ? text.replaceAll('\n', '\r\n') : text),
    begin(pod, container) {
      end();
      if (!takesInput && !hasTerminal) return;
      const own = new DisposableStack();
      current = own;
      const socket = client.open(`${podPath(pod)}/input?container=${encodeURIComponent(container)}`);
      own.defer(() => socket.terminate());
      if (lendsTerminal) own.use(makeRaw(terminal));
      socket.once('open', () => {
        if (own.disposed) return;
        if (hasTerminal) own.use(followSize(socket, terminal));
        if (takesInput) own.use(pumpInput(socket, terminal, lendsTerminal ? leave : undefined));
      });
      // The container and its input have ended; the run reports the reason.
      socket.on('error', () => own.dispose());
      socket.once('close', () => own.dispose());
    },
    [Symbol.dispose]: end,
  };
}
