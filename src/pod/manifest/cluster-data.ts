import type { ConfigMap, Pod, Secret } from '../schema/objects.ts';

/**
 * ConfigMaps that a cluster publishes in each namespace. Pods printed by a cluster mount them; they are skipped unless
 * given.
 */
const publishedConfigMaps = ['kube-root-ca.crt', 'openshift-service-ca.crt'];
export const dockerConfigTypes = ['kubernetes.io/dockerconfigjson', 'kubernetes.io/dockercfg'];

export function isPublishedConfigMap(name: string): boolean {
  return publishedConfigMaps.includes(name);
}

export interface MissingData {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** Lists optional objects that the pod refers to and that were not given. */
export function missingData(
  pod: Pod,
  given: { readonly configMaps: readonly ConfigMap[]; readonly secrets: readonly Secret[] },
): MissingData[] {
  const { namespace } = pod.metadata;
  const isHere = (it: ConfigMap | Secret, name: string) =>
    it.metadata.name === name && it.metadata.namespace === namespace;
  const missing: MissingData[] = [];
  const note = (name: string | undefined, path: readonly (string | number)[]) => {
    if (name === undefined || !isPublishedConfigMap(name) || given.configMaps.some((it) => isHere(it, name))) return;
    missing.push({ path, message: `is skipped: a cluster would provide the ConfigMap ${name}` });
  };
  for (const [index, { configMap, projected }] of pod.spec.volumes.entries()) {
    note(configMap?.name, ['spec', 'volumes', index, 'configMap']);
    for (const [at, source] of (projected?.sources ?? []).entries()) {
      note(source.configMap?.name, ['spec', 'volumes', index, 'projected', 'sources', at, 'configMap']);
    }
  }
  for (const [index, { name }] of pod.spec.imagePullSecrets.entries()) {
    const secret = given.secrets.find((it) => isHere(it, name));
    if (secret !== undefined && dockerConfigTypes.includes(secret.type)) continue;
    const why =
      secret === undefined
        ? `there is no Secret ${namespace}/${name} in the files`
        : `the Secret ${name} must have the type ${dockerConfigTypes.join(' or ')}`;
    missing.push({ path: ['spec', 'imagePullSecrets', index], message: `has no effect: ${why}` });
  }
  return missing;
}
