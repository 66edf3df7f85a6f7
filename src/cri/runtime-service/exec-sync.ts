import type { Readable } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { numberOf } from '../translate/int64.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { ExecSyncRequest, ExecSyncResponseSchema } from '../schema/api_pb.ts';

/**
 * Bytes kept of each stream. The rest is dropped, with a note at the end of standard error. Both must fit into one
 * message of 16 MiB. Other runtimes keep 16 MiB of each without a note, and their answer may be too large.
 */
export const maxKeptBytes = 7 * 1024 * 1024;
/** Time to wait for output of a child that outlives the process, in `ms`. */
const lateOutputMs = 2000;
const killSignal = 9;
const maxTimeoutSeconds = 24 * 3600;

/**
 * Runs a command and returns its output. It is killed after `timeout` seconds, or when the caller leaves. Errors:
 * `notFound`, `failedPrecondition` unless the container runs, `timeout`.
 */
export async function execSync(
  { pods }: CriParts,
  { containerId, cmd, timeout }: ExecSyncRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ExecSyncResponseSchema>> {
  const { container } = pods.container(containerId);
  const exec = await container.exec({ command: cmd, tty: false, stdin: false }, signal);
  const output = Promise.all([collect(exec.stdout), collect(exec.stderr)]);
  const seconds = timeout <= 0n ? undefined : numberOf('a timeout', timeout, [0, maxTimeoutSeconds]);
  const { exitCode } = await endOf(exec, seconds, signal);
  const whole = { stdout: exec.stdout, ...(exec.stderr === undefined ? {} : { stderr: exec.stderr }) };
  const inTime = await within(output, { ms: lateOutputMs });
  if (inTime === undefined) for (const stream of Object.values(whole)) stream.destroy();
  const [stdout, stderr] = await output;
  const cut = [cutLine('standard output', stdout), cutLine('standard error', stderr)].join('');
  const last = stderr.kept.at(-1);
  const gap = cut === '' || last === undefined || last === newline ? '' : '\n';
  return { stdout: stdout.kept, stderr: Buffer.concat([stderr.kept, Buffer.from(gap + cut)]), exitCode };
}

const newline = 0x0a;

const cutLine = (what: string, { kept, dropped }: Collected): string =>
  dropped === 0 ? '' : `podvm: ${what} was truncated to ${kept.length} bytes, and ${dropped} bytes were dropped\n`;

interface Collected {
  readonly kept: Uint8Array<ArrayBuffer>;
  readonly dropped: number;
}

async function endOf(exec: Exec, seconds: number | undefined, signal: AbortSignal): Promise<{ exitCode: number }> {
  const tooLate = new AbortController();
  const timer = seconds === undefined ? undefined : setTimeout(() => tooLate.abort(), seconds * 1000);
  const over = AbortSignal.any([signal, tooLate.signal]);
  try {
    return await untilAborted(exec.exited, over);
  } catch (error) {
    await exec.kill(killSignal);
    if (signal.aborted || !tooLate.signal.aborted) throw error;
    throw new PodvmError('timeout', `Cannot run the command: it took longer than ${seconds} s and was killed`, {
      fix: 'Give the command more time, such as by timeoutSeconds of the probe.',
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Reads a stream until it ends or is interrupted. */
async function collect(stream: Readable | undefined): Promise<Collected> {
  const kept: Uint8Array[] = [];
  let room = maxKeptBytes;
  let dropped = 0;
  try {
    for await (const chunk of stream ?? []) {
      const whole = chunk as Uint8Array; // SAFE: the link's streams carry bytes
      const bytes = whole.subarray(0, room);
      if (bytes.length > 0) kept.push(bytes);
      room -= bytes.length;
      dropped += whole.length - bytes.length;
    }
  } catch {
    // The stream was interrupted: keeps the bytes so far; the exit code shows the result.
  }
  return { kept: Buffer.concat(kept), dropped };
}
