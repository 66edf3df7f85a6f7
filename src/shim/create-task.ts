import { readFileIfThere } from '#host/file/files.ts';
import { PodvmError } from '#base/errors.ts';
import { type Bundle, readBundle } from './bundle/bundle.ts';
import { podCgroupOf } from './bundle/pod-cgroup.ts';
import { Input, type IoPaths } from './io/fifos.ts';
import { checkFifo } from './io/open-fifo.ts';
import type { FifoKeeper } from './io/fifo-keeper.ts';
import { holdPorts } from './keep-track.ts';
import type { ShimParts } from './parts.ts';
import { TaskOOMSchema } from './schema/generated/events/task_pb.ts';
import type { CreateTaskRequest } from './schema/generated/runtime/task/v2/shim_pb.ts';
import type { Mount } from './schema/generated/types/mount_pb.ts';
import { ContainerTask, type ContainerTaskParts } from './task/container-task.ts';
import { PodTask } from './task/pod-task.ts';
import type { Task } from './task/process.ts';
import { containerSpecOf, terminationMountOf } from './translate/container-spec.ts';
import { snapshotLayersOf } from './translate/rootfs.ts';
import { kindOfTask, sandboxIdOf, sandboxSpecOf } from './translate/sandbox-spec.ts';

interface Request {
  readonly id: string;
  readonly bundle: Bundle;
  readonly rootfs: readonly Mount[];
  readonly paths: IoPaths;
}

/** Makes the task that a bundle describes: a pod with its machine, or a container in one. */
export async function createTask(
  parts: ShimParts,
  { id, bundle: path, rootfs, terminal, stdin, stdout, stderr, checkpoint }: CreateTaskRequest,
  signal: AbortSignal,
): Promise<Task> {
  if (checkpoint !== '') {
    throw new PodvmError('unsupported', `Cannot create task ${id} from a checkpoint`, {
      fix: 'Create it from its image.',
    });
  }
  return await parts.tasks.add(id, async () => {
    const bundle = await readBundle(path, id);
    const request: Request = { id, bundle, rootfs, paths: { stdin, stdout, stderr, terminal } };
    switch (kindOfTask(bundle.spec)) {
      case 'pod': {
        const pod = await createPod(parts, request, signal);
        holdPorts(parts, pod);
        return pod;
      }
      case 'container':
        return await createContainer(parts, request, podOf(parts, request), signal);
      case 'single': {
        await readRequest(request); // what is refused costs no machine
        const pod = await createPod(parts, request, signal);
        try {
          return await createContainer(parts, request, pod, signal);
        } catch (error) {
          await pod.remove().catch((failure: unknown) => parts.log.error('pod not removed', failure, { task: id }));
          throw error;
        }
      }
    }
  });
}

async function createPod(parts: ShimParts, { id, bundle, paths }: Request, signal: AbortSignal): Promise<PodTask> {
  const { sandboxes, tasks, log } = parts;
  const resolvConf = bundle.spec.mounts?.find(({ destination }) => destination === '/etc/resolv.conf')?.source;
  const spec = sandboxSpecOf(bundle.spec, {
    id,
    namespace: bundle.namespace,
    attempt: tasks.nextAttempt(),
    cgroupParent: kindOfTask(bundle.spec) === 'pod' ? await podCgroupOf(bundle.spec) : undefined,
    resolvConf: resolvConf === undefined ? undefined : await readFileIfThere(resolvConf),
  });
  const sandbox = await sandboxes.run(spec, signal);
  for (const warning of sandbox.warnings) log.warn('a limit was reduced', { sandbox: sandbox.id, warning });
  return new PodTask({ id, pid: sandbox.status.vmmPid ?? tasks.nextPid(), bundle, paths, sandbox, log });
}

function podOf({ tasks }: ShimParts, { id, bundle }: Request): PodTask {
  const pod = tasks.get(sandboxIdOf(bundle.spec));
  if (!(pod instanceof PodTask) || pod.bundle.namespace !== bundle.namespace) {
    throw new PodvmError('failedPrecondition', `Cannot create container ${id}: its pod is not in podvm`, {
      fix: 'Create its pod with the runtime handler of podvm, in the same namespace of containerd.',
    });
  }
  return pod;
}

/** Reads where a container's files and output are. Errors: those of `checkFifo` and `snapshotLayersOf`. */
async function readRequest({ id, rootfs, paths }: Pick<Request, 'id' | 'rootfs' | 'paths'>) {
  const { stdin, stdout, stderr, terminal } = paths;
  const outputs = { ...(stdout === '' ? {} : { stdout }), ...(stderr === '' || terminal ? {} : { stderr }) };
  for (const path of [stdin, ...Object.values(outputs)]) if (path !== '') await checkFifo(path);
  return { outputs, layers: await snapshotLayersOf(`container ${id}`, rootfs) };
}

async function createContainer(
  parts: ShimParts,
  { id, bundle, rootfs, paths }: Request,
  pod: PodTask,
  signal: AbortSignal,
): Promise<ContainerTask> {
  const { tasks, keeper } = parts;
  const { stdin, stdout, stderr } = paths;
  const { layers, outputs } = await readRequest({ id, rootfs, paths });
  const facts = {
    id,
    attempt: tasks.nextAttempt(),
    rootfs: layers,
    podPid: pod.pid,
    hasStdin: stdin !== '',
    outputs,
  };
  const spec = await containerSpecOf(bundle.spec, facts);
  const input = stdin === '' ? undefined : await openInput(stdin, keeper);
  try {
    const container = await pod.sandbox.createContainer(spec, signal);
    if (container.status.exit?.reason === 'StartError') {
      const { why = 'it cannot be started' } = container.status.exit;
      await container.remove(signal);
      throw new PodvmError('failedPrecondition', why);
    }
    const eventsSocket = bundle.eventsSocket ?? pod.bundle.eventsSocket;
    const made = { id, pid: tasks.nextPid(), bundle: { ...bundle, eventsSocket }, paths, pod, container, input };
    return containerTaskOf(parts, made);
  } catch (error) {
    input?.close();
    for (const path of [stdin, stdout, stderr]) if (path !== '') await keeper.forget(path);
    throw error;
  }
}

/** Makes the task of a container from containerd's description of it. */
export function containerTaskOf(
  { keeper, events, closing, log }: ShimParts,
  made: Pick<ContainerTaskParts, 'id' | 'pid' | 'bundle' | 'paths' | 'pod' | 'container' | 'input' | 'life'>,
): ContainerTask {
  const { id, bundle } = made;
  return new ContainerTask({
    ...made,
    ownsPod: kindOfTask(bundle.spec) === 'single',
    messagePath: terminationMountOf(bundle.spec)?.source,
    onOutOfMemory: () => events.tell(bundle, '/tasks/oom', TaskOOMSchema, { containerId: id }),
    keeper,
    closing,
    log,
  });
}

/** Opens input that waits for the next daemon, too. */
export async function openInput(path: string, keeper: FifoKeeper): Promise<Input> {
  await keeper.hold(path);
  return await Input.open(path, () => void keeper.end(path));
}
