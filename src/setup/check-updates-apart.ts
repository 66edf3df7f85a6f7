import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { type UpdateFinding, updateReportSchema, type UpdateRequest } from './update-report.ts';

/** More than its parts have together. */
const timeoutMs = 15 * 60_000;
const maxAnswerBytes = 256 * 1024;
const maxHeapMb = 256;

/**
 * `checkUpdates` by a process of its own, behind everything else on the machine: what it waits for, parses and compares
 * holds up no pod. It ends with us. Errors: those of `run`, `corrupt` for an answer that is none.
 */
export async function checkUpdatesApart(
  request: UpdateRequest,
  signal: AbortSignal,
): Promise<readonly UpdateFinding[]> {
  const program = [`--max-old-space-size=${maxHeapMb}`, join(import.meta.dirname, 'updates-process.ts')];
  const args = ['--pdeathsig', 'KILL', 'nice', '-n', '19', process.execPath, ...program];
  const { stdout } = await run('setpriv', args, {
    input: JSON.stringify(request),
    signal,
    timeoutMs,
    maxOutputBytes: maxAnswerBytes,
  });
  try {
    return v.parse(updateReportSchema, JSON.parse(stdout));
  } catch (cause) {
    throw new PodvmError('corrupt', 'Cannot check for updates: the process that does it answered with no report', {
      cause,
    });
  }
}
