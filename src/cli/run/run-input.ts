import type { Client } from '../client.ts';
import { podPath } from '../pod-name.ts';
import { followSize, makeRaw, pumpInput } from '../terminal-input.ts';
import type { Terminal } from '../terminal.ts';

/** Which of this process's streams the container of an image gets. */
export interface InputWish {
  /** Standard input. */
  readonly takesInput: boolean;
  /** The container has a terminal. With input, too, it gets this one, raw. */
  readonly hasTerminal: boolean;
}

/** Passes input to the container of a run, from each of its starts to its end. Disposing gives the terminal back. */
export interface RunInput extends Disposable {
  /** Called when the container runs. */
  begin(pod: string, container: string): void;
  /** Lines as the terminal needs them now: a raw one does not return its carriage by itself. */
  lines(text: string): string;
}

/** `wish`: undefined where the containers get nothing. */
export function createRunInput(client: Client, wish: InputWish | undefined, terminal: Terminal): RunInput {
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
        if (takesInput) own.use(pumpInput(socket, terminal));
      });
      // The container has ended, and with it its input; the run says why.
      socket.on('error', () => own.dispose());
      socket.once('close', () => own.dispose());
    },
    [Symbol.dispose]: end,
  };
}
