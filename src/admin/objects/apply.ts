import { isDeepStrictEqual } from 'node:util';
import { PodvmError } from '#base/errors.ts';
import type { RunEvent, RunRequest } from '#api/run.ts';
import type { Clock } from '#host/clock.ts';
import { hadNoMachine, type Manifest } from '#pod/pods.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { Job } from '#pod/schema/workloads.ts';
import { workloadAnnotation, workloadName } from '#pod/manifest/workloads.ts';
import type { NamedVolumes } from '#storage/named-volumes.ts';
import type { PodSource } from '../record/ended-record.ts';
import { applyData } from './apply-data.ts';
import { leftTo, type LivePod, onlyOf, untilOver } from '../pods/known-pod.ts';
import type { CronJobs } from '../pods/cron-jobs.ts';
import { hasPods, type Jobs } from '../pods/jobs.ts';
import type { NewestCalls } from '../newest-calls.ts';
import type { NodePods } from '../pods/node-pods.ts';
import { followStart } from '../session/run-session.ts';
import { isSameSource, plain } from '../record/same-pod.ts';
import type { NodeServices } from '../pods/node-services.ts';
import { ensureVolumes, tellServices, workloadSource } from '../tell-manifest.ts';

/** What a call about the objects of files needs. */
export interface ObjectsParts {
  readonly request: RunRequest;
  readonly manifest: Manifest;
  readonly pods: NodePods;
  readonly jobs: Jobs;
  readonly cronJobs: CronJobs;
  readonly calls: NewestCalls;
  readonly volumes: NamedVolumes;
  readonly services: NodeServices;
  readonly clock: Clock;
  readonly say: (event: RunEvent) => Promise<void>;
  readonly signal: AbortSignal;
}

/** What a call about one object needs. */
type GroupParts = ObjectsParts & ReturnType<NewestCalls['begin']>;

interface PodObject {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** An object that has pods: a Pod itself, or a workload. */
interface PodGroup extends PodObject {
  readonly pods: readonly Pod[];
  /** All pods end before new ones start. */
  readonly recreates?: boolean;
}

/** Time for a pod to become ready before the next one of its workload is replaced, in `ms`. */
const readyMs = 600_000;

export const objectName = ({ kind, namespace, name }: PodObject): string => `${kind} ${namespace}/${name}`;

export const sourceOf = (pod: Pod, { manifest, request }: Pick<ObjectsParts, 'manifest' | 'request'>): PodSource => ({
  pod,
  ...workloadSource(request, manifest),
});

/** Groups the pods of a manifest by the object that makes them, in the order of the files. */
export function groupsOf({ pods, workloads }: Manifest): readonly PodGroup[] {
  const isMade = (pod: Pod) =>
    workloads.some((workload) => isOfWorkload(pod, workload.metadata.namespace, workloadName(workload)));
  const alone = pods.filter((pod) => !isMade(pod));
  return [
    ...alone.map((pod) => ({ kind: 'Pod', ...namesOf(pod), pods: [pod] })),
    ...workloads.map((workload) => ({
      kind: workload.kind,
      recreates: workload.kind === 'Deployment' && workload.spec.strategy.type === 'Recreate',
      ...namesOf(workload),
      pods: pods.filter((pod) => isOfWorkload(pod, namesOf(workload).namespace, workloadName(workload))),
    })),
  ];
}

const namesOf = ({ metadata: { namespace, name } }: Pick<Pod, 'metadata'>) => ({ namespace, name });

const isOfWorkload = ({ metadata }: Pick<Pod, 'metadata'>, namespace: string, workload: string): boolean =>
  metadata.namespace === namespace && metadata.annotations[workloadAnnotation] === workload;

/** Running pods of an object, also those that its present template no longer makes. */
export const livePodsOf = ({ kind, namespace, name }: PodObject, pods: NodePods): readonly LivePod[] =>
  pods
    .live()
    .filter(({ source: { pod } }) =>
      kind === 'Pod'
        ? pod.metadata.namespace === namespace && pod.metadata.name === name
        : isOfWorkload(pod, namespace, `${kind}/${name}`),
    );

/**
 * Brings the node to what the files say: makes what is missing, replaces pods that the files describe otherwise, one after
 * another, and ends those that a workload no longer has. Returns the first exit code of a pod that could not start.
 */
export async function applyObjects(parts: ObjectsParts): Promise<number> {
  const { manifest, say, volumes, services, signal } = parts;
  const ofVolumes = await ensureVolumes(manifest, volumes, signal);
  for (const [at, { metadata }] of manifest.claims.entries()) {
    const object = objectName({ kind: 'PersistentVolumeClaim', ...metadata });
    await say({ event: 'object', object, change: ofVolumes[at] ?? 'unchanged' });
  }
  const changes = await tellServices(manifest, services, say);
  for (const [at, { metadata }] of manifest.services.entries()) {
    await say({
      event: 'object',
      object: objectName({ kind: 'Service', ...metadata }),
      change: changes[at] ?? 'unchanged',
    });
  }
  await applyData(parts);
  for (const job of manifest.jobs) await applyJob(job, parts);
  for (const cronJob of manifest.cronJobs) {
    const change = await parts.cronJobs.apply(cronJob, workloadSource(parts.request, manifest));
    await say({ event: 'object', object: objectName({ kind: 'CronJob', ...cronJob.metadata }), change });
  }
  const ofGroups = await Promise.all(groupsOf(manifest).map((group) => applyGroup(group, parts)));
  return ofGroups.find((code) => code !== 0) ?? 0;
}

/** Begins a Job, once. Errors: `failedPrecondition` for one that the files describe otherwise. */
async function applyJob(job: Job, parts: ObjectsParts): Promise<void> {
  const { pods, jobs, say } = parts;
  const { namespace, name } = job.metadata;
  const object = objectName({ kind: 'Job', namespace, name });
  const known = jobs.find(job);
  if (known === undefined && !hasPods(job, pods)) {
    await jobs.run(job, { source: workloadSource(parts.request, parts.manifest), isApplied: true }).begun;
    return await say({ event: 'object', object, change: 'created' });
  }
  if (known === undefined || isDeepStrictEqual(plain(known.job.spec), plain(job.spec))) {
    return await say({ event: 'object', object, change: 'unchanged' });
  }
  throw new PodvmError('failedPrecondition', `Cannot apply ${object}: it has begun, and a Job cannot change`, {
    fix: 'Remove it with `podvm delete -f`, and apply it again.',
  });
}

async function applyGroup(group: PodGroup, given: ObjectsParts): Promise<number> {
  const { pods, say, signal, calls } = given;
  using call = calls.begin(objectName(group));
  const parts = { ...given, ...call };
  const before = livePodsOf(group, pods);
  const wanted = new Set(group.pods.map(({ metadata }) => metadata.name));
  const surplus = before.filter(({ name }) => !wanted.has(name));
  await Promise.all(surplus.map((live) => endAndForget(live, pods)));
  const missing: Pod[] = [];
  const changed: { readonly live: LivePod; readonly pod: Pod }[] = [];
  for (const pod of group.pods) {
    const live = before.find(({ name }) => name === pod.metadata.name);
    if (live === undefined) {
      if (!(await hasRun(pod, parts))) missing.push(pod);
    } else if (!isSameSource(live.source, sourceOf(pod, parts), { ignoresSecrets: live.hasLostSecrets })) {
      changed.push({ live, pod });
    } else if (pod.spec.restartPolicy === 'Always') await pods.takeApplied(live);
  }
  const isNew = before.length === 0 && missing.length === group.pods.length && missing.length > 0;
  const isUnchanged = surplus.length + missing.length + changed.length === 0;
  const change = isNew ? 'created' : isUnchanged ? 'unchanged' : 'configured';
  if (group.recreates === true && changed.length > 0) {
    await Promise.all(changed.map(({ live }) => endAndForget(live, pods)));
    missing.push(...changed.splice(0).map(({ pod }) => pod));
  }
  let code = await startMissing(missing, group, parts);
  for (const { live, pod } of changed) {
    if (code !== 0 || signal.aborted) break;
    await endAndForget(live, pods);
    code = await startReady(pod, parts);
  }
  if (code === 0 && !signal.aborted) await say({ event: 'object', object: objectName(group), change });
  return code;
}

/** Whether a Pod that ends by itself has done so, as the file describes it. */
async function hasRun(pod: Pod, parts: ObjectsParts): Promise<boolean> {
  const source = await sourceOfRun(pod, parts);
  return source !== undefined && isSameSource(source, sourceOf(pod, parts), { ignoresSecrets: true });
}

/** What a Pod that ends by itself, and has, was made of; undefined for one that got no machine, and is tried again. */
export async function sourceOfRun(
  { metadata: { namespace, name }, spec }: Pod,
  { pods }: Pick<ObjectsParts, 'pods'>,
): Promise<PodSource | undefined> {
  if (spec.restartPolicy === 'Always') return undefined;
  const ended = pods.ended().find((pod) => pod.namespace === namespace && pod.name === name);
  return ended === undefined || hadNoMachine(ended.outcome) ? undefined : await pods.endedSource(namespace, name);
}

/** Starts pods at once, or those of a StatefulSet one after another. Returns the first exit code of one that failed. */
async function startMissing(missing: readonly Pod[], { kind }: PodGroup, parts: GroupParts): Promise<number> {
  if (kind !== 'StatefulSet') {
    const codes = await Promise.all(missing.map((pod) => startOne(pod, parts).then(({ code }) => code)));
    return codes.find((code) => code !== 0) ?? 0;
  }
  for (const pod of missing) {
    const code = await startReady(pod, parts);
    if (code !== 0 || parts.signal.aborted) return code;
  }
  return 0;
}

async function startOne(pod: Pod, parts: GroupParts): Promise<{ readonly live: LivePod; readonly code: number }> {
  const { pods, say } = parts;
  parts.requireNewest();
  const options = { removeAtEnd: false, isApplied: pod.spec.restartPolicy === 'Always' };
  const live = onlyOf(pods.start([sourceOf(pod, parts)], options));
  const name = `${live.namespace}/${live.name}`;
  // The object is reported, not its pods.
  const { exitCode } = await followStart(live, name, (event) =>
    event.event === 'podDetached' ? Promise.resolve() : say(event),
  );
  return { live, code: exitCode };
}

/** Starts a pod and waits until it is ready, for the next one to follow. Returns 124 if it does not become so. */
async function startReady(pod: Pod, parts: GroupParts): Promise<number> {
  const { live, code } = await startOne(pod, parts);
  if (code !== 0) return code;
  const outcome = await untilReady(live, parts);
  if (outcome === 'ready' || parts.signal.aborted) return 0;
  if (outcome === 'over' && pod.spec.restartPolicy !== 'Always') return 0; // it ends by itself
  const name = `${live.namespace}/${live.name}`;
  const what = outcome === 'over' ? 'has ended before it was ready' : `is not ready after ${readyMs / 1000} s`;
  await parts.say({ event: 'warning', message: `${name} ${what}: the pods after it stay as they are` });
  return 124;
}

/** Waits until the pod is ready or over, for some time. Errors: `unavailable` when this process ends before. */
async function untilReady(
  { pod, left, name }: LivePod,
  { clock, signal }: ObjectsParts,
): Promise<'ready' | 'over' | 'no'> {
  const isReady = () => pod.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
  if (isReady()) return 'ready';
  if (signal.aborted) return 'no';
  using waiting = new DisposableStack();
  const { promise, resolve } = Promise.withResolvers<'ready' | 'no'>();
  const giveUp = () => resolve('no');
  waiting.defer(pod.onChange(() => isReady() && resolve('ready')));
  waiting.defer(clock.after(readyMs, giveUp));
  signal.addEventListener('abort', giveUp, { once: true });
  waiting.defer(() => signal.removeEventListener('abort', giveUp));
  const ends = [pod.finished.then(() => 'over' as const), left.then(() => 'left' as const)];
  const outcome = await Promise.race([promise, ...ends]);
  if (outcome === 'left') throw leftTo(name);
  return outcome;
}

/** Stops a pod, and removes its record. */
export async function endAndForget(live: LivePod, pods: NodePods): Promise<void> {
  void live.pod.terminate();
  await untilOver(live);
  await pods.forget(({ namespace, name }) => namespace === live.namespace && name === live.name);
}
