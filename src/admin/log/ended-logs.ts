import { PodvmError } from '#base/errors.ts';
import { readLog } from '#sandbox/log/read-log.ts';
import { linesOf } from './log-lines.ts';
import type { EndedPod } from '../record/ended-pods.ts';
import { chooseName, type LogQuery } from './pod-logs.ts';

type Instance = EndedPod['logs'][number];

/**
 * Yields the output of a container of a pod that has ended; following ends at once. Errors: `notFound`,
 * `failedPrecondition` for a container that never ran.
 */
export async function* endedLogs(
  { name: pod, details: { containers }, logs }: EndedPod,
  pathOf: (instance: Instance) => string,
  { container, previous, tailLines, lines }: LogQuery,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const names = containers.map(({ name }) => name);
  const name = chooseName(pod, names, container ?? containers.find(({ kind }) => kind === 'main')?.name);
  const instances = logs.filter((log) => log.container === name).sort((a, b) => b.attempt - a.attempt);
  const wanted = instances[previous ? 1 : 0];
  if (wanted === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot read logs of ${pod}/${name}: none were kept`, {
      fix: previous ? 'Omit --previous.' : `See what happened with \`podvm inspect ${pod}\`.`,
    });
  }
  const options = { follow: false, ...(tailLines === undefined ? {} : { tailLines }) };
  yield* linesOf(readLog(pathOf(wanted), options, signal), lines);
}
