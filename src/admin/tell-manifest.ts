import { PodvmError } from '#base/errors.ts';
import { parseQuantity, unitsOf } from '#base/quantity.ts';
import type { RunEvent, RunRequest } from '#api/run.ts';
import { problemText } from '#pod/manifest/manifest.ts';
import type { Manifest } from '#pod/pods.ts';
import { readManifests } from '#pod/manifest/read-manifests.ts';
import type { Claim } from '#pod/schema/objects.ts';
import type { Job } from '#pod/schema/workloads.ts';
import type { NodeServices, ServiceRun } from './pods/node-services.ts';
import type { WorkloadSource } from './record/job-record.ts';
import type { NamedVolumes, VolumeChange, VolumeWish } from '#storage/named-volumes.ts';

/** What the pods of a call's files are made of besides themselves. */
export const workloadSource = (
  { network, logins }: Pick<RunRequest, 'network' | 'logins'>,
  { configMaps, secrets }: Manifest,
): WorkloadSource => ({ configMaps, secrets, logins, network });

type ServiceChange = Awaited<ReturnType<NodeServices['apply']>>['changes'][number];

/** Limit of pods in one run. */
const maxPodsPerRun = 256;

/**
 * Reads the manifest; returns undefined after an abort of `signal`. Errors: those of `readManifests`; `invalid` when
 * there is nothing to run.
 */
export async function tellManifest(
  request: RunRequest,
  say: (event: RunEvent) => Promise<void>,
  signal: AbortSignal,
  { needsPods = true } = {},
): Promise<Manifest | undefined> {
  const manifest = await readManifests(request.files, signal).catch((error: unknown) => {
    if (signal.aborted) return undefined;
    throw error;
  });
  if (manifest === undefined) return undefined;
  for (const warning of manifest.warnings) await say({ event: 'warning', message: problemText(warning) });
  const names = request.files.map((file) => file.name).join(', ');
  const { pods, jobs, cronJobs, workloads, claims, services, configMaps, secrets } = manifest;
  const data = needsPods ? [] : [configMaps, secrets, cronJobs];
  for (const { metadata } of needsPods ? cronJobs : []) {
    const name = `CronJob ${metadata.namespace}/${metadata.name}`;
    await say({
      event: 'warning',
      message: `${name} is skipped: \`podvm apply -f\` begins its Jobs when they are due`,
    });
  }
  if ([pods, jobs, workloads, claims, services, ...data].every((objects) => objects.length === 0)) {
    throw new PodvmError('invalid', `Cannot run ${names}: it contains no Pod`, {
      fix: 'Pass a file with a Pod, or with a Deployment, StatefulSet, DaemonSet or Job.',
    });
  }
  const count = jobs.reduce((sum, job) => sum + podsAtOnce(job), pods.length);
  if (count > maxPodsPerRun) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${names}: at most ${maxPodsPerRun} pods can run at once, got ${count}`,
      { fix: 'Run the files in several commands.' },
    );
  }
  for (const { namespace, name, problems } of manifest.refused) {
    const pod = namespace === 'default' ? name : `${namespace}/${name}`;
    await say({ event: 'podRefused', pod, problems: problems.map(problemText) });
  }
  return signal.aborted ? undefined : manifest;
}

const podsAtOnce = ({ spec: { parallelism, completions = 1 } }: Job): number => Math.min(parallelism, completions);

/** Makes the volumes of the claims that are missing, and enlarges others. Errors: those of `ensure`. */
export const ensureVolumes = (
  { claims }: Manifest,
  volumes: NamedVolumes,
  signal: AbortSignal,
): Promise<readonly VolumeChange[]> => volumes.ensure(claims.map(volumeOf), signal);

/**
 * Makes the Services; what keeps pods from reaching them is a warning. `run`: the one with which they end. Errors:
 * `exhausted`.
 */
export async function tellServices(
  { services }: Manifest,
  known: NodeServices,
  say: (event: RunEvent) => Promise<void>,
  run?: ServiceRun,
): Promise<readonly ServiceChange[]> {
  const { changes, why } = await known.apply(services, run);
  if (why !== undefined) await say({ event: 'warning', message: `Services are not served: ${why}` });
  return changes;
}

export const volumeOf = ({ metadata: { namespace, name }, spec }: Claim): VolumeWish => {
  const storage = parseQuantity(spec.resources.requests.storage);
  return { namespace, name, sizeBytes: storage === undefined ? Number.NaN : unitsOf(storage) };
};
