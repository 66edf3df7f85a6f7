import { PodvmError } from '#base/errors.ts';
import type { RunningPod } from '#pod/pods.ts';
import { readLog } from '#sandbox/read-log.ts';
import type { ContainerStatus, Sandbox } from '#sandbox/sandbox.ts';

export interface LogQuery {
  /** May be left out when the pod has one container. */
  readonly container: string | undefined;
  readonly follow: boolean;
  readonly tailLines: number | undefined;
  /** The instance before the current one, as after a crash. */
  readonly previous: boolean;
}

/** The container a request means. Errors: `invalid` when it must be named, `notFound`. */
export function chooseContainer(pod: RunningPod, name: string | undefined): string {
  const names = [...(pod.pod.spec.initContainers ?? []), ...pod.pod.spec.containers].map((container) => container.name);
  const [only] = pod.pod.spec.containers;
  if (name === undefined && pod.pod.spec.containers.length === 1 && only !== undefined) return only.name;
  if (name === undefined) {
    throw new PodvmError('invalid', `Cannot choose a container of pod ${pod.name}: it has ${names.join(', ')}`, {
      fix: 'Name one with -c.',
    });
  }
  if (!names.includes(name)) {
    throw new PodvmError('notFound', `Cannot find container ${name} in pod ${pod.name}: it has ${names.join(', ')}`);
  }
  return name;
}

/** A container's output as it came. Errors: `failedPrecondition` before its first start, `notFound`. */
export async function* podLogs(pod: RunningPod, query: LogQuery, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const name = chooseContainer(pod, query.container);
  const { sandbox } = pod;
  const instances = (sandbox?.status.containers ?? []).filter((container) => container.name === name);
  const wanted = instances.sort((a, b) => b.attempt - a.attempt)[query.previous ? 1 : 0];
  if (sandbox === undefined || wanted === undefined) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot read logs of ${pod.name}/${name}: it has not ${query.previous ? 're' : ''}started yet`,
    );
  }
  const options = {
    follow: query.follow,
    ...(query.tailLines === undefined ? {} : { tailLines: query.tailLines }),
    ended: endOf(sandbox, wanted),
  };
  for await (const record of readLog(wanted.logPath, options, signal)) yield record.bytes;
}

function endOf(sandbox: Sandbox, wanted: ContainerStatus): Promise<unknown> {
  const live = sandbox.container(wanted.name);
  if (live === undefined || live.status.attempt !== wanted.attempt) return Promise.resolve();
  return live.follow(() => Promise.resolve()).ended;
}
