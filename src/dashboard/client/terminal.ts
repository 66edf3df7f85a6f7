import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import * as v from 'valibot';
import { channel, execStatusSchema } from '#api/exec.ts';
import { openSocket } from './api.ts';
import { allowStyles } from './style-sheets.ts';
import type { Told } from './ui.tsx';

export interface TerminalEnd {
  /** How the command ended. */
  readonly said?: string;
  readonly error?: Told;
}

/** Bytes that wait for the terminal; a command that writes faster loses what is beyond. */
const maxWaitingBytes = 4 * 1024 * 1024;

/**
 * Shows a command's terminal in `element` until it ends or `signal` aborts. Sequences that set the title, open links or
 * reach the clipboard do nothing.
 */
export async function openTerminal(
  element: HTMLElement,
  path: string,
  query: URLSearchParams,
  signal: AbortSignal,
): Promise<TerminalEnd> {
  allowStyles();
  const style = getComputedStyle(element);
  const terminal = new Terminal({
    fontFamily: style.fontFamily,
    fontSize: 13,
    theme: { background: '#101418', foreground: '#d5dbe1', cursor: '#d5dbe1', selectionBackground: '#3a5a8a' },
    screenReaderMode: true,
    scrollback: 5000,
    linkHandler: { activate: () => undefined },
  });
  for (const code of ignoredSequences) terminal.parser.registerOscHandler(code, () => true);
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  element.replaceChildren();
  terminal.open(element);
  fit.fit();
  query.set('columns', String(terminal.cols));
  query.set('rows', String(terminal.rows));
  const socket = openSocket(`${path}?${query.toString()}`);
  const resized = new ResizeObserver(() => fit.fit());
  resized.observe(element);
  signal.addEventListener('abort', () => {
    socket.close();
    resized.disconnect();
    terminal.dispose();
  });
  const encoder = new TextEncoder();
  const send = (to: number, body: Uint8Array) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(new Uint8Array([to, ...body]));
  };
  terminal.onData((text) => send(channel.stdin, encoder.encode(text)));
  terminal.onBinary((text) =>
    send(
      channel.stdin,
      Uint8Array.from(text, (char) => char.charCodeAt(0)),
    ),
  );
  terminal.onResize(({ cols, rows }) =>
    send(channel.resize, encoder.encode(JSON.stringify({ Width: cols, Height: rows }))),
  );
  terminal.focus();
  let end: TerminalEnd = {
    error: { message: 'Cannot run the command: the connection was closed', fix: 'Look at the state of the pod.' },
  };
  let waitingBytes = 0;
  socket.addEventListener('message', ({ data }) => {
    if (!(data instanceof ArrayBuffer)) return;
    const frame = new Uint8Array(data);
    const body = frame.subarray(1);
    if (frame[0] === channel.status) end = endOf(body);
    else if (waitingBytes + body.length <= maxWaitingBytes) {
      waitingBytes += body.length;
      terminal.write(body, () => (waitingBytes -= body.length));
    }
  });
  await new Promise((resolve) => socket.addEventListener('close', resolve, { once: true }));
  if (signal.aborted) return end;
  terminal.options.disableStdin = true;
  terminal.options.cursorBlink = false;
  return end;
}

/** Titles (0, 1, 2), links (8), notifications (9, 777), the clipboard (52), and an editor's own (633, 1337). */
const ignoredSequences = [0, 1, 2, 8, 9, 52, 633, 777, 1337] as const;

function endOf(body: Uint8Array): TerminalEnd {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), execStatusSchema), new TextDecoder().decode(body));
  if (!parsed.success) return { error: { message: 'Cannot read the answer of podvm' } };
  const { output } = parsed;
  return 'error' in output ? { error: output.error } : { said: `Ended with exit code ${output.exitCode}` };
}
