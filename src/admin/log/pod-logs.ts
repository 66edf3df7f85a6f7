import { PodvmError } from '#base/errors.ts';
import { readLog } from '#sandbox/log/read-log.ts';
import type { ContainerStatus, Sandbox } from '#sandbox/sandbox.ts';
import { type LineQuery, linesOf } from './log-lines.ts';
import type { ReachedPod } from '../pods/reached-pod.ts';

export interface LogQuery {
  /** Name of the container; undefined: the first main container. */
  readonly container: string | undefined;
  readonly follow: boolean;
  readonly tailLines: number | undefined;
  /** Selects the instance before the current one, as after a crash. */
  readonly previous: boolean;
  readonly lines: LineQuery;
}

/** Returns the requested container, by default the first main one, as kubectl does. Errors: `notFound`. */
export function chooseContainer({ name: pod, containers, chosen }: ReachedPod, name: string | undefined): string {
  return chooseName(pod, containers, name ?? chosen);
}

/** Returns the name if the pod has such a container. Errors: `notFound`. */
export function chooseName(pod: string, names: readonly string[], wanted = ''): string {
  if (names.includes(wanted)) return wanted;
  throw new PodvmError('notFound', `Cannot find container ${wanted} in pod ${pod}: it has ${names.join(', ')}`, {
    fix: 'Give one of these with -c.',
  });
}

/** Yields a container's output. Errors: `failedPrecondition` before its first start, `notFound`. */
export async function* podLogs(pod: ReachedPod, query: LogQuery, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const name = chooseContainer(pod, query.container);
  const { sandbox } = pod;
  const instances = (sandbox?.status.containers ?? []).filter((container) => container.name === name);
  const wanted = instances.sort((a, b) => b.attempt - a.attempt)[query.previous ? 1 : 0];
  if (sandbox === undefined || wanted === undefined) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot read logs of ${pod.name}/${name}: it has not ${query.previous ? 're' : ''}started yet`,
      { fix: query.previous ? 'Omit --previous.' : `See why with \`podvm inspect ${pod.name}\`.` },
    );
  }
  const options = {
    follow: query.follow,
    ...(query.tailLines === undefined ? {} : { tailLines: query.tailLines }),
    ended: endOf(sandbox, wanted),
  };
  yield* linesOf(readLog(wanted.logPath, options, signal), query.lines);
}

function endOf(sandbox: Sandbox, wanted: ContainerStatus): Promise<unknown> {
  const live = sandbox.container(wanted.name);
  if (live === undefined || live.status.attempt !== wanted.attempt) return Promise.resolve();
  return live.follow(() => Promise.resolve()).ended;
}
