import { messageOf } from '#base/errors.ts';
import { removeUnknown } from '#sandbox/adoption/remove-unknown.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { type Bundle, readBundle } from './bundle/bundle.ts';
import { containerTaskOf, openInput } from './create-task.ts';
import { keepTrack, openPorts } from './keep-track.ts';
import type { ShimParts } from './parts.ts';
import { PodTask } from './task/pod-task.ts';
import { ProcessLife } from './task/process-life.ts';
import type { TaskRecord } from './task/task-records.ts';

type Recorded = readonly [id: string, record: TaskRecord];

/**
 * Restores the tasks of an earlier daemon, with their pids, FIFOs and exits. Pods and containers that containerd does not
 * know, or has given up meanwhile (its bundle is gone), are removed. Nothing of a sandbox that is left alone is.
 */
export async function recoverTasks(parts: ShimParts): Promise<void> {
  const { sandboxes, records, log } = parts;
  const left = new Map(await records.load());
  const find = (matches: (record: TaskRecord) => boolean): Recorded | undefined => {
    const found = [...left].find(([, record]) => matches(record));
    if (found !== undefined) left.delete(found[0]);
    return found;
  };
  for (const sandbox of sandboxes.list().filter(({ spec }) => spec.keptFor === 'containerd')) {
    const recorded = find(({ kind, sandboxId }) => kind !== 'container' && sandboxId === sandbox.id);
    if (recorded?.[1].kind === 'single' && (await restoreSingle(parts, recorded, sandbox))) continue;
    const pod = recorded?.[1].kind === 'pod' ? await restorePod(parts, recorded, sandbox) : undefined;
    const isLeft = sandbox.status.leftAlone !== undefined; // the record may be one of a newer podvm
    if (pod === undefined) {
      if (isLeft) continue;
      if (recorded !== undefined) left.set(...recorded); // its record goes, too
      log.warn('removing a sandbox that containerd does not know', { sandbox: sandbox.id });
      await sandbox.remove().catch((error: unknown) => log.error('sandbox not removed', error));
      continue;
    }
    for (const container of sandbox.containers) {
      const known = find(({ containerId }) => containerId === container.status.id);
      const isRestored = known !== undefined && (await restoreContainer(parts, known, pod, container));
      if (isRestored || isLeft) continue;
      if (known !== undefined) left.set(...known);
      await removeUnknown(container, log);
    }
  }
  const isLeftAlone = new Set(
    sandboxes.list().flatMap(({ id, status }) => (status.leftAlone === undefined ? [] : [id])),
  );
  for (const [id, record] of left) {
    if (isLeftAlone.has(record.sandboxId)) continue; // the record of its container may be one of a newer podvm
    for (const path of Object.values(record.io)) if (typeof path === 'string') await parts.keeper.forget(path);
    await records.remove(id);
  }
}

async function restorePod(parts: ShimParts, [id, record]: Recorded, sandbox: Sandbox): Promise<PodTask | undefined> {
  const bundle = await bundleOf(parts, id, record);
  if (bundle === undefined) return undefined;
  const { log, tasks } = parts;
  const pod = new PodTask({ id, pid: record.pid, bundle, paths: record.io, sandbox, life: lifeOf(record), log });
  tasks.restore(pod, sandbox.spec.attempt ?? 0);
  await keepTrack(parts, pod, record.isExitTold);
  openPorts(parts, pod);
  return pod;
}

/** Its machine has one container, unless its daemon ended before there was one. */
async function restoreSingle(parts: ShimParts, recorded: Recorded, sandbox: Sandbox): Promise<boolean> {
  const [id, record] = recorded;
  const [container] = sandbox.containers;
  const bundle = await bundleOf(parts, id, record);
  if (container === undefined || bundle === undefined) return false;
  const pod = new PodTask({ id, pid: record.pid, bundle, paths: record.io, sandbox, log: parts.log });
  return await restoreContainer(parts, recorded, pod, container);
}

async function restoreContainer(
  parts: ShimParts,
  [id, record]: Recorded,
  pod: PodTask,
  container: Container,
): Promise<boolean> {
  const bundle = await bundleOf(parts, id, record);
  if (bundle === undefined) return false;
  const { io: paths, pid } = record;
  const input =
    paths.stdin === '' || container.stdin === undefined ? undefined : await openInput(paths.stdin, parts.keeper);
  const task = containerTaskOf(parts, { id, pid, bundle, paths, pod, container, input, life: lifeOf(record) });
  parts.tasks.restore(task, container.status.attempt);
  await keepTrack(parts, task, record.isExitTold);
  return true;
}

async function bundleOf({ log }: ShimParts, id: string, record: TaskRecord): Promise<Bundle | undefined> {
  try {
    const bundle = await readBundle(record.bundle, id);
    return { ...bundle, eventsSocket: record.eventsSocket ?? bundle.eventsSocket };
  } catch (error) {
    log.warn('containerd no longer has a task', { task: id, why: messageOf(error) });
    return undefined;
  }
}

const lifeOf = ({ isStarted, exit }: TaskRecord) =>
  new ProcessLife({
    isStarted,
    ...(exit === undefined ? {} : { exit: { status: exit.status, at: new Date(exit.at) } }),
  });
