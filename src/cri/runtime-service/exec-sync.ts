import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import type { Exec } from '#sandbox/sandbox.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { numberOf } from '../translate/int64.ts';
import { untilAborted } from '#sandbox/until-aborted.ts';
import type { ExecSyncRequest, ExecSyncResponseSchema } from '../schema/api_pb.ts';

/** Bytes kept of each stream; the rest is read and dropped. Both have to fit into one message of 16 MiB. */
export const maxKeptBytes = 7 * 1024 * 1024;
/** A process may leave its output to a child that lives on: how long that is waited for, in `ms`. */
const lateOutputMs = 2000;
const killSignal = 9;
const maxTimeoutSeconds = 24 * 3600;

/**
 * Runs a command and returns its output. After `timeout` seconds, or when the caller leaves, it is killed. Errors:
 * `notFound`, `failedPrecondition` unless the container runs, `timeout`.
 */
export async function execSync(
  { pods }: CriParts,
  { containerId, cmd, timeout }: ExecSyncRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ExecSyncResponseSchema>> {
  const { container } = pods.container(containerId);
  if (cmd.length === 0) throw new PodvmError('invalid', 'Cannot run a command: none was given');
  const exec = await container.exec({ command: cmd, tty: false, stdin: false }, signal);
  const output = Promise.all([collect(exec.stdout), collect(exec.stderr)]);
  const seconds = timeout <= 0n ? undefined : numberOf('a timeout', timeout, [0, maxTimeoutSeconds]);
  const { exitCode } = await endOf(exec, seconds, signal);
  const whole = { stdout: exec.stdout, ...(exec.stderr === undefined ? {} : { stderr: exec.stderr }) };
  const late = delay(lateOutputMs, undefined, { ref: false }).then(() => {
    for (const stream of Object.values(whole)) stream.destroy();
  });
  await Promise.race([output, late]);
  const [stdout, stderr] = await output;
  return { stdout, stderr, exitCode };
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
    throw new PodvmError('timeout', `Cannot run the command: it was killed, as it took longer than ${seconds} s`);
  } finally {
    clearTimeout(timer);
  }
}

/** What a stream says until it ends or is cut off. */
async function collect(stream: Readable | undefined): Promise<Uint8Array<ArrayBuffer>> {
  const kept: Uint8Array[] = [];
  let room = maxKeptBytes;
  try {
    for await (const chunk of stream ?? []) {
      const bytes = (chunk as Uint8Array).subarray(0, room); // SAFE: the link's streams carry bytes
      if (bytes.length > 0) kept.push(bytes);
      room -= bytes.length;
    }
  } catch {
    // The stream was cut off: what came before counts, and the exit code says the rest.
  }
  return Buffer.concat(kept);
}
