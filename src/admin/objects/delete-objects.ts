import { type ObjectsParts, endAndForget, groupsOf, livePodsOf, objectName } from './apply.ts';
import type { EndedPod } from '../record/ended-pods.ts';
import { isOfJob } from '../pods/jobs.ts';
import type { LivePod } from '../pods/known-pod.ts';
import { isJobOf, jobLabel } from '#pod/manifest/workloads.ts';

/** Ends the pods of the files' objects, and forgets them. Volumes stay, with their data. */
export async function deleteObjects({
  manifest,
  pods,
  jobs: ofNode,
  cronJobs: ofCrons,
  calls,
  services,
  say,
}: ObjectsParts): Promise<number> {
  const remove = async (
    object: string,
    live: readonly LivePod[],
    isOld: (pod: EndedPod) => boolean,
    isKnown = false,
  ) => {
    const isThere = isKnown || live.length > 0 || pods.ended().some(isOld);
    await Promise.all(live.map((pod) => endAndForget(pod, pods)));
    await pods.forget(isOld);
    await say(
      isThere
        ? { event: 'object', object, change: 'deleted' }
        : { event: 'warning', message: `${object} is not there: nothing to delete` },
    );
  };
  const groups = groupsOf(manifest).map(async (group) => {
    const object = objectName(group);
    using _ = calls.begin(object);
    const named = new Set(group.pods.map(({ metadata }) => metadata.name));
    await remove(
      object,
      livePodsOf(group, pods),
      ({ namespace, name }) => namespace === group.namespace && named.has(name),
    );
  });
  const jobs = manifest.jobs.map(async (job) => {
    const wasKnown = await ofNode.remove(job);
    await remove(
      objectName({ kind: 'Job', ...job.metadata }),
      pods.live().filter(({ pod: { pod } }) => isOfJob(job, pod.metadata)),
      ({ namespace, details: { labels } }) => isOfJob(job, { namespace, labels }),
      wasKnown,
    );
  });
  const cronJobs = manifest.cronJobs.map(async (cronJob) => {
    const wasKnown = await ofCrons.remove(cronJob);
    const isOf = (namespace: string, labels: Readonly<Record<string, string>>) =>
      namespace === cronJob.metadata.namespace && isJobOf(cronJob, labels[jobLabel] ?? '');
    await remove(
      objectName({ kind: 'CronJob', ...cronJob.metadata }),
      pods.live().filter(({ namespace, pod: { pod } }) => isOf(namespace, pod.metadata.labels)),
      ({ namespace, details: { labels } }) => isOf(namespace, labels),
      wasKnown,
    );
  });
  await Promise.all([...groups, ...jobs, ...cronJobs]);
  for (const service of manifest.services) {
    const wasThere = await services.remove(service);
    await remove(objectName({ kind: 'Service', ...service.metadata }), [], () => false, wasThere);
  }
  for (const { metadata } of manifest.claims) {
    await say({ event: 'object', object: objectName({ kind: 'PersistentVolumeClaim', ...metadata }), change: 'kept' });
  }
  return 0;
}
