import { type ObjectsParts, endAndForget, groupsOf, isOfJob, livePodsOf, objectName } from './apply.ts';

/** Ends the pods of the files' objects, and forgets them. Volumes stay, with their data. */
export async function deleteObjects({ manifest, pods, jobs: ofNode, calls, say }: ObjectsParts): Promise<number> {
  const told = async (object: string, isThere: boolean) =>
    await say(
      isThere
        ? { event: 'object', object, change: 'deleted' }
        : { event: 'warning', message: `${object} is not there: nothing to delete` },
    );
  const groups = groupsOf(manifest).map(async (group) => {
    using _ = calls.begin(objectName(group));
    const live = livePodsOf(group, pods);
    const named = new Set(group.pods.map(({ metadata }) => metadata.name));
    const isOld = (pod: { readonly namespace: string; readonly name: string }) =>
      pod.namespace === group.namespace && named.has(pod.name);
    const hasEnded = pods.ended().some(isOld);
    await Promise.all(live.map((pod) => endAndForget(pod, pods)));
    await pods.forget(isOld);
    await told(objectName(group), live.length > 0 || hasEnded);
  });
  const jobs = manifest.jobs.map(async (job) => {
    const { namespace, name } = job.metadata;
    const wasKnown = ofNode.remove(job);
    const live = pods.live().filter(({ pod: { pod } }) => isOfJob(job, pod.metadata));
    const isOld = (pod: {
      readonly namespace: string;
      readonly details: { readonly labels: Record<string, string> };
    }) => isOfJob(job, { namespace: pod.namespace, labels: pod.details.labels });
    const hasEnded = pods.ended().some(isOld);
    await Promise.all(live.map((pod) => endAndForget(pod, pods)));
    await pods.forget(isOld);
    await told(objectName({ kind: 'Job', namespace, name }), wasKnown || live.length > 0 || hasEnded);
  });
  await Promise.all([...groups, ...jobs]);
  for (const { metadata } of manifest.claims) {
    await say({ event: 'object', object: objectName({ kind: 'PersistentVolumeClaim', ...metadata }), change: 'kept' });
  }
  return 0;
}
