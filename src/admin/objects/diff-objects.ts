import { stringify } from 'yaml';
import type { PodSource } from '../record/ended-record.ts';
import { type ObjectsParts, groupsOf, livePodsOf, objectName, sourceOf, sourceOfRun } from './apply.ts';
import { hasPods } from '../pods/jobs.ts';
import { volumeOf } from '../tell-manifest.ts';
import { configMapsOf, isSameSource, plain, shownPod } from '../record/same-pod.ts';

/** Tells what `apply` would change. Returns 1 if that is something, as kubectl does. */
export async function diffObjects(parts: ObjectsParts): Promise<number> {
  const { manifest, pods, jobs, cronJobs, volumes, services, say } = parts;
  let code = 0;
  const differs = async (object: string, before: string, after: string) => {
    code = 1;
    await say({ event: 'differs', object, before, after });
  };
  const known = await volumes.list();
  for (const claim of manifest.claims) {
    const { namespace, name } = claim.metadata;
    const found = known.find((volume) => volume.namespace === namespace && volume.name === name);
    const { sizeBytes } = volumeOf(claim);
    if (found !== undefined && found.sizeBytes >= sizeBytes) continue; // a volume has whole blocks, and does not shrink
    const [was, is] =
      found === undefined ? ['', yamlOf(claim)] : [found.sizeBytes, sizeBytes].map((bytes) => `storage: ${bytes}\n`);
    await differs(objectName({ kind: 'PersistentVolumeClaim', namespace, name }), was ?? '', is ?? '');
  }
  for (const service of manifest.services) {
    const before = services.find(service);
    const [was, is] = [before === undefined ? '' : yamlOf(before.spec), yamlOf(service.spec)];
    if (was !== is) await differs(objectName({ kind: 'Service', ...service.metadata }), was, is);
  }
  for (const job of manifest.jobs) {
    const before = jobs.find(job)?.job;
    if (before === undefined && hasPods(job, pods)) continue;
    const [was, is] = [before === undefined ? '' : yamlOf(before.spec), yamlOf(job.spec)];
    if (was !== is) await differs(objectName({ kind: 'Job', ...job.metadata }), was, is);
  }
  for (const cronJob of manifest.cronJobs) {
    const before = cronJobs.find(cronJob);
    const [was, is] = [before === undefined ? '' : yamlOf(before.spec), yamlOf(cronJob.spec)];
    if (was !== is) await differs(objectName({ kind: 'CronJob', ...cronJob.metadata }), was, is);
  }
  for (const group of groupsOf(manifest)) {
    const live = livePodsOf(group, pods);
    const names = new Set([...live.map(({ name }) => name), ...group.pods.map(({ metadata }) => metadata.name)]);
    for (const name of names) {
      const running = live.find((it) => it.name === name);
      const wanted = group.pods.find(({ metadata }) => metadata.name === name);
      const before = running?.source ?? (wanted && (await sourceOfRun(wanted, parts)));
      const after = wanted && sourceOf(wanted, parts);
      const ignoresSecrets = running === undefined || running.hasLostSecrets;
      if (before !== undefined && after !== undefined && isSameSource(before, after, { ignoresSecrets })) continue;
      await differs(`Pod ${group.namespace}/${name}`, textOf(before), textOf(after));
    }
  }
  return code;
}

/** The Pod and its ConfigMaps. Secrets are not shown: that they differ is all that is told of them. */
function textOf(source: PodSource | undefined): string {
  if (source === undefined) return '';
  const objects = [shownPod(source.pod), ...configMapsOf(source)];
  return objects.map(yamlOf).join('---\n');
}

const yamlOf = (object: unknown): string => stringify(plain(object), { lineWidth: 0 });
