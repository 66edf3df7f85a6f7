import { PodvmError } from '#base/errors.ts';
import type { SandboxVolume, VolumeFile } from '#sandbox/sandbox.ts';
import { fieldText, type PodFacts } from './downward.ts';
import { findData, type ConfigSource } from './lookup.ts';
import type { PodConfig } from '../pods.ts';
import { parseQuantity, unitsOf } from '#base/quantity.ts';
import { resourceText } from './resources.ts';
import type { PodContainer } from '../schema/container.ts';
import type { Pod } from '../schema/objects.ts';
import type { DownwardItem, Volume } from '../schema/volume.ts';

interface Item {
  readonly key: string;
  readonly path: string;
  readonly mode?: number | undefined;
}

/** Returns the pod's volumes with their files. Errors: `notFound` for a ConfigMap, Secret or key; `invalid`. */
export function sandboxVolumes(pod: Pod, config: PodConfig, facts: PodFacts): SandboxVolume[] {
  return pod.spec.volumes.flatMap((volume): SandboxVolume | [] => {
    if ((volume.image ?? volume.hostPath ?? volume.persistentVolumeClaim) !== undefined) return []; // provided by its mounts
    if (volume.emptyDir === undefined) {
      return { name: volume.name, kind: 'push', files: lastOfEachPath(filesOf(volume, pod, config, facts)) };
    }
    const { medium, sizeLimit } = volume.emptyDir;
    const limit = parseQuantity(sizeLimit ?? '');
    return {
      name: volume.name,
      kind: medium === 'Memory' ? 'tmpfs' : 'scratch',
      // Kubernetes treats 0 as no limit.
      ...(limit === undefined || limit.nano === 0n ? {} : { sizeLimitBytes: unitsOf(limit) }),
    };
  });
}

function filesOf(volume: Volume, pod: Pod, config: PodConfig, facts: PodFacts): VolumeFile[] {
  const { configMap, secret, downwardAPI, projected } = volume;
  const ofObject = (source: ConfigSource, items: readonly Item[] | undefined, mode: number) =>
    objectFiles(pod, config, source, items, mode);
  if (configMap !== undefined) {
    return ofObject({ kind: 'ConfigMap', ...configMap }, configMap.items, configMap.defaultMode);
  }
  if (secret !== undefined) {
    const source = { kind: 'Secret', name: secret.secretName, optional: secret.optional } as const;
    return ofObject(source, secret.items, secret.defaultMode);
  }
  if (downwardAPI !== undefined) return downwardFiles(pod, config, facts, downwardAPI.items, downwardAPI.defaultMode);
  const mode = projected?.defaultMode ?? 0o644;
  return (projected?.sources ?? []).flatMap((source) => {
    if (source.configMap !== undefined) {
      return ofObject({ kind: 'ConfigMap', ...source.configMap }, source.configMap.items, mode);
    }
    if (source.secret !== undefined) return ofObject({ kind: 'Secret', ...source.secret }, source.secret.items, mode);
    return downwardFiles(pod, config, facts, source.downwardAPI?.items ?? [], mode);
  });
}

function objectFiles(
  pod: Pod,
  config: PodConfig,
  source: ConfigSource,
  items: readonly Item[] | undefined,
  defaultMode: number,
): VolumeFile[] {
  const data = findData(config, pod.metadata.namespace, source);
  if (data === undefined) return [];
  if (items === undefined) return [...data].map(([path, bytes]) => ({ path, bytes, mode: defaultMode }));
  return items.flatMap((item) => {
    const bytes = data.get(item.key);
    if (bytes !== undefined) return [{ path: item.path, bytes, mode: item.mode ?? defaultMode }];
    if (source.optional) return [];
    throw new PodvmError(
      'notFound',
      `Cannot find the key ${JSON.stringify(item.key)} in the ${source.kind} ${pod.metadata.namespace}/${source.name}`,
      { fix: `Add the key to the ${source.kind}, or mark the volume as optional.` },
    );
  });
}

function downwardFiles(
  pod: Pod,
  config: PodConfig,
  facts: PodFacts,
  items: readonly DownwardItem[],
  defaultMode: number,
): VolumeFile[] {
  return items.map((item) => ({
    path: item.path,
    bytes: Buffer.from(downwardText(pod, config, facts, item)),
    mode: item.mode ?? defaultMode,
  }));
}

function downwardText(pod: Pod, config: PodConfig, facts: PodFacts, item: DownwardItem): string {
  if (item.fieldRef !== undefined) return fieldText(pod, facts, item.fieldRef.fieldPath);
  const ref = item.resourceFieldRef;
  const all: readonly PodContainer[] = [...pod.spec.initContainers, ...pod.spec.containers];
  const target = all.find((it) => it.name === ref?.containerName);
  if (ref === undefined || target === undefined) {
    throw new PodvmError(
      'invalid',
      `Cannot fill ${item.path}: resourceFieldRef must name a container of the pod, got ${ref?.containerName ?? 'none'}`,
      { fix: 'Set containerName to the name of a container.' },
    );
  }
  return resourceText(target, ref, config.machine ?? { cpuMillis: 1000, memoryBytes: 0 });
}

/** Removes duplicate paths of projected sources; the last wins, as in kubelet's payload map. */
function lastOfEachPath(files: readonly VolumeFile[]): VolumeFile[] {
  return [...new Map(files.map((file) => [file.path, file])).values()];
}
