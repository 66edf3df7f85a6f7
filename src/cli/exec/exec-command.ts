import { type Client, fromErrorBody } from '../client.ts';
import { type ExecSpec, followExec, openExec } from './exec-session.ts';
import { followSize, makeRaw, pumpInput, requireTerminal, sizeOf } from '../terminal/terminal-input.ts';
import { type Terminal, errorText, write } from '../terminal/terminal.ts';

/** Runs `podvm exec` and returns the command's exit code. With a tty, the terminal is raw until the command ends. */
export async function execCommand(client: Client, spec: ExecSpec, terminal: Terminal): Promise<number> {
  if (spec.tty) requireTerminal(terminal, 'the command');
  const socket = openExec(client, spec, spec.tty ? sizeOf(terminal) : undefined);
  const input = new DisposableStack();
  try {
    if (spec.tty) {
      input.use(makeRaw(terminal));
      socket.once('open', () => input.use(followSize(socket, terminal)));
    }
    if (spec.stdin) socket.once('open', () => input.use(pumpInput(socket, terminal)));
    const status = await followExec(socket, {
      stdout: (bytes) => write(terminal.stdout, bytes),
      stderr: (bytes) => write(terminal.stderr, bytes),
    });
    if (!('error' in status)) return status.exitCode;
    const error = fromErrorBody(status.error);
    if (status.exitCode === undefined) throw error;
    await write(terminal.stderr, errorText(error));
    return status.exitCode;
  } finally {
    input.dispose();
    socket.terminate();
  }
}
