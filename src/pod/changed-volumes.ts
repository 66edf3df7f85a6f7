import { isDeepStrictEqual } from 'node:util';
import type { VolumeFile } from '#sandbox/sandbox.ts';
import type { PodFacts } from './spec/downward.ts';
import type { PodConfig } from './pods.ts';
import type { Pod } from './schema/objects.ts';
import type { LocalProfiles } from './spec/security.ts';
import { containerSpecOf } from './spec/specs.ts';
import { sandboxVolumes } from './spec/volumes.ts';

export interface ChangedVolume {
  readonly name: string;
  readonly files: readonly VolumeFile[];
}

/**
 * Volumes whose files differ between two configurations of a running pod. Errors: `notFound` if the later one lacks what a
 * volume or a container needs.
 */
export function changedVolumes(
  pod: Pod,
  before: PodConfig,
  after: PodConfig,
  { facts, profiles }: { readonly facts: PodFacts; readonly profiles: LocalProfiles },
): readonly ChangedVolume[] {
  for (const container of [...pod.spec.initContainers, ...pod.spec.containers])
    containerSpecOf(pod, container, 0, after, facts, profiles);
  const old = before.hasLostSecrets === true ? [] : sandboxVolumes(pod, before, facts); // of lost ones all count as changed
  return sandboxVolumes(pod, after, facts).filter(
    (volume, at) => volume.kind === 'push' && !isDeepStrictEqual(volume, old[at]),
  ) as ChangedVolume[]; // SAFE: a push volume has files
}
