import type { Readable, Writable } from 'node:stream';
import { kindOf } from '#base/errors.ts';
import { type Clock, deadlineAfter } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Exec, OutputChunk } from '#sandbox/sandbox.ts';
import { type RemoteStatus, statusOfError, statusOfExit, success } from './remote-status.ts';
import type { Attachment, AttachStreamRequest, ExecStreamRequest } from './streaming.ts';
import { terminalSizes } from './terminal-sizes.ts';

/** The client's streams over any transport; those that were not requested are absent. */
export interface ProcessChannels {
  readonly stdin?: Readable;
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** JSON of consecutive terminal sizes. */
  readonly resize?: Readable;
  /** Aborts when the client is gone, or has to leave. */
  readonly gone: AbortSignal;
  /** Ends the output streams, sends the status, and ends the connection. */
  finish(status: RemoteStatus): Promise<void>;
}

/** Parts of serving besides the client. */
export interface ServeParts {
  readonly log: Log;
  readonly clock: Clock;
}

const startTimeoutMs = 60_000;
/** Signals for a process whose terminal is gone: the first, and the one if it does not end. */
const hangUp = 1;
const kill = 9;
const hangUpMs = 5_000;

/** Serves one exec from start to end; never rejects. The process ends when the client disconnects. */
export async function serveExec(
  request: ExecStreamRequest,
  channels: ProcessChannels,
  { log, clock }: ServeParts,
): Promise<void> {
  const { gone } = channels;
  let status: RemoteStatus;
  try {
    const spec = { command: request.command, tty: request.tty, stdin: request.stdin };
    // A disconnect does not cancel the start, which could leave a part of it; the started process is ended instead.
    using start = deadlineAfter(clock, startTimeoutMs, new AbortController().signal);
    const exec = await request.target.exec(spec, start.signal);
    const leave = () => void end(exec, request.tty, { log, clock });
    gone.addEventListener('abort', leave, { once: true });
    if (gone.aborted) leave();
    try {
      if (exec.stdin !== undefined) void feed(channels.stdin, exec.stdin, gone, () => exec.stdin?.end());
      void resize(channels.resize, exec, log);
      const outputs = [drain(exec.stdout, channels.stdout), drain(exec.stderr, channels.stderr)];
      const [{ exitCode }] = await Promise.all([exec.exited, ...outputs]);
      status = statusOfExit(exitCode);
    } finally {
      gone.removeEventListener('abort', leave);
    }
  } catch (error) {
    if (kindOf(error) === 'internal' && !gone.aborted) log.error('exec failed', error);
    status = statusOfError(error);
  }
  await channels.finish(status);
}

async function end(exec: Exec, tty: boolean, { log, clock }: ServeParts): Promise<void> {
  const cancel = clock.after(hangUpMs, () => void signal(exec, kill, log));
  void exec.exited.then(cancel, cancel);
  await signal(exec, tty ? hangUp : kill, log);
  for (const stream of [exec.stdin, exec.stdout, exec.stderr]) stream?.destroy();
}

async function signal(exec: Exec, signalNumber: number, log: Log): Promise<void> {
  try {
    await exec.kill(signalNumber);
  } catch (error) {
    if (kindOf(error) !== 'notFound') log.error('exec may have outlived its client', error);
  }
}

/** Serves one attach until the container's output ends, or the client is done; never rejects. */
export async function serveAttach(
  request: AttachStreamRequest,
  channels: ProcessChannels,
  { log, clock }: ServeParts,
): Promise<void> {
  let status: RemoteStatus = success;
  try {
    using start = deadlineAfter(clock, startTimeoutMs, channels.gone);
    const attachment = await request.target.attach(start.signal);
    try {
      await converse(request, attachment, channels, log);
    } finally {
      attachment.detach();
    }
  } catch (error) {
    if (kindOf(error) === 'internal') log.error('attach failed', error);
    status = statusOfError(error);
  }
  await channels.finish(status);
}

async function converse(
  { stdin, tty }: AttachStreamRequest,
  attachment: Attachment,
  channels: ProcessChannels,
  log: Log,
): Promise<void> {
  const { gone } = channels;
  if (gone.aborted) return;
  const over = new AbortController();
  const done = Promise.withResolvers<void>();
  over.signal.addEventListener('abort', () => done.resolve(), { once: true });
  const leave = () => over.abort();
  gone.addEventListener('abort', leave, { once: true });
  const output = attachment.follow(async ({ stream, bytes }: OutputChunk) => {
    await write(stream === 'stdout' ? channels.stdout : channels.stderr, bytes, over.signal);
  });
  void output.ended.then(leave);
  const input = attachment.stdin;
  if (stdin && input !== undefined) {
    // As in containerd, the end of the client's input is the container's with `stdinOnce`, else only the client's.
    void feed(channels.stdin, input, over.signal, () => {
      if (attachment.stdinOnce && !tty) input.end();
      else leave();
    });
  }
  void resize(channels.resize, attachment, log);
  await done.promise;
  gone.removeEventListener('abort', leave);
  output.stop();
}

/**
 * Forwards input until the client ends it, then calls `onEnd`. Input without a reader is dropped, so that the client's
 * other streams continue.
 */
async function feed(from: Readable | undefined, to: Writable, over: AbortSignal, onEnd: () => void): Promise<void> {
  try {
    for await (const chunk of piecesOf(from)) {
      await write(to, chunk, over);
      if (to.destroyed || to.writableEnded || over.aborted) break;
    }
  } catch {
    // The client reset its stream or disconnected: its input ends here, which the session knows.
  }
  from?.resume();
  if (!to.destroyed && !to.writableEnded && !over.aborted) onEnd();
}

async function* piecesOf(from: Readable | undefined): AsyncGenerator<Uint8Array> {
  if (from !== undefined) yield* from.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}

/**
 * Forwards output to its end. Output that the client does not read, or did not request, is dropped, so that the process
 * continues.
 */
async function drain(from: Readable | undefined, to: Writable | undefined): Promise<void> {
  if (from === undefined) return;
  for await (const chunk of from as AsyncIterable<Uint8Array>) await write(to, chunk);
}

/** Resolves when the bytes were accepted, or will never be, or the wait was aborted. */
async function write(to: Writable | undefined, bytes: Uint8Array, over?: AbortSignal): Promise<void> {
  if (to === undefined || to.destroyed || to.writableEnded || bytes.length === 0 || over?.aborted) return;
  await new Promise<void>((resolve) => {
    const settle = () => {
      to.off('close', settle);
      over?.removeEventListener('abort', settle);
      resolve();
    };
    to.once('close', settle); // a destroyed stream may never call back
    over?.addEventListener('abort', settle, { once: true });
    to.write(bytes, settle);
  });
}

interface Resizable {
  resize(columns: number, rows: number): Promise<void>;
}

/**
 * Follows the client's terminal, one call at a time. Only the last of the sizes that arrive during a call is applied.
 */
async function resize(sizes: Readable | undefined, target: Resizable, log: Log): Promise<void> {
  if (sizes === undefined) return;
  let latest: { readonly columns: number; readonly rows: number } | undefined;
  let isBusy = false;
  const apply = async () => {
    if (isBusy) return;
    isBusy = true;
    for (let size = latest; size !== undefined; size = latest) {
      latest = undefined;
      await target.resize(size.columns, size.rows).catch((error: unknown) => {
        log.debug('resize failed', { kind: kindOf(error) });
      });
    }
    isBusy = false;
  };
  try {
    for await (const { Width, Height } of terminalSizes(sizes)) {
      latest = { columns: Width, rows: Height };
      void apply();
    }
  } catch {
    // The client reset the stream: the terminal keeps its size.
  }
}
