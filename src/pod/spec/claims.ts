import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import type { PodConfig } from '../pods.ts';
import type { Pod } from '../schema/objects.ts';

/** Names of the claims that the pod's volumes refer to, without duplicates. */
export const claimsOf = ({ volumes }: Pick<Pod['spec'], 'volumes'>): readonly string[] => [
  ...new Set(volumes.flatMap(({ persistentVolumeClaim: claim }) => (claim === undefined ? [] : [claim.claimName]))),
];

/** Path of the image file of a claim's volume. Errors: `unsupported` on a node without named volumes. */
export function claimPath(namespace: string, claim: string, { volumePath }: Pick<PodConfig, 'volumePath'>): string {
  if (volumePath !== undefined) return volumePath(namespace, claim);
  throw new PodvmError('unsupported', `Cannot mount the claim ${namespace}/${claim}: this node has no named volumes`, {
    fix: 'Use an emptyDir or hostPath volume.',
  });
}

/** Checks that the volumes of the pod's claims exist. Errors: `notFound`. */
export async function requireClaims({ metadata, spec }: Pod, config: Pick<PodConfig, 'volumePath'>): Promise<void> {
  const { namespace } = metadata;
  for (const claim of claimsOf(spec)) {
    if (await isThere(claimPath(namespace, claim, config))) continue;
    throw new PodvmError('notFound', `Cannot mount the claim ${namespace}/${claim}: the node has no such volume`, {
      fix: 'Put a PersistentVolumeClaim of that name into the file; `podvm volume ls` lists the volumes that exist.',
    });
  }
}
