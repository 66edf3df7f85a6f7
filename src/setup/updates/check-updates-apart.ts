import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { run } from '#host/process/run.ts';
import { type UpdateFinding, updateReportSchema, type UpdateRequest } from '../update-report.ts';

/** More than the timeouts of its parts together. */
const timeoutMs = 15 * 60_000;
const maxAnswerBytes = 256 * 1024;
const maxHeapMb = 256;

/**
 * Runs `checkUpdates` in another process with the lowest priority, so that waiting, parsing and comparing delay no pod. It
 * ends with this process. Errors: those of `run`, `corrupt` for an invalid answer.
 */
export async function checkUpdatesApart(
  request: UpdateRequest,
  signal: AbortSignal,
): Promise<readonly UpdateFinding[]> {
  const program = [
    `--max-old-space-size=${maxHeapMb}`,
    join(programDirectory, entryPoint('src/setup/updates/updates-process')),
  ];
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
    throw new PodvmError('corrupt', 'Cannot check for updates: the answer of the checking process is not a report', {
      cause,
    });
  }
}
