import type { RegistryLogin } from '#sandbox/sandbox.ts';
import { findData } from './lookup.ts';
import type { PodConfig } from '../pods.ts';
import { dockerLogins } from '../schema/docker-config.ts';
import type { Pod } from '../schema/objects.ts';

/**
 * Returns the registry logins of the pod's imagePullSecrets, in order, then those of its user. Missing Secrets are skipped, as
 * kubelets do.
 */
export function pullLogins({ metadata, spec }: Pod, config: PodConfig): readonly RegistryLogin[] {
  const ofSecrets = spec.imagePullSecrets.flatMap(({ name }) => {
    const source = { kind: 'Secret', name, optional: true } as const;
    const type = config.secrets.find(
      (it) => it.metadata.name === name && it.metadata.namespace === metadata.namespace,
    )?.type;
    const data = findData(config, metadata.namespace, source);
    if (type === undefined || data === undefined) return [];
    const isJson = type === 'kubernetes.io/dockerconfigjson';
    if (!isJson && type !== 'kubernetes.io/dockercfg') return [];
    const text = Buffer.from(data.get(isJson ? '.dockerconfigjson' : '.dockercfg') ?? '').toString('utf8');
    return dockerLogins(text, isJson) ?? [];
  });
  return [...ofSecrets, ...(config.logins ?? [])];
}
