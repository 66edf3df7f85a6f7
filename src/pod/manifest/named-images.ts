import { type ManifestFile } from './manifest.ts';
import { readManifests } from './read-manifests.ts';

/** Images that the Pods of files name, each once, also those of volumes. Errors: those of `readManifests`. */
export async function namedImages(files: readonly ManifestFile[], signal: AbortSignal): Promise<readonly string[]> {
  const { pods, jobs } = await readManifests(files, signal);
  const specs = [...pods.map(({ spec }) => spec), ...jobs.map((job) => job.spec.template.spec)];
  const images = specs.flatMap((spec) => [
    ...[...spec.initContainers, ...spec.containers].map(({ image }) => image),
    ...spec.volumes.flatMap(({ image }) => (image === undefined ? [] : [image.reference])),
  ]);
  return [...new Set(images)];
}
