import { isDeepStrictEqual } from 'node:util';
import type { ConfigMap, Pod, Secret } from '#pod/schema/objects.ts';
import type { PodSource } from './ended-record.ts';

/** Whether two sources make the same pod: the same Pod, ConfigMaps and Secrets, as far as the pod refers to them. */
export function isSameSource(one: PodSource, other: PodSource, { ignoresSecrets = false } = {}): boolean {
  return isDeepStrictEqual(comparable(one, ignoresSecrets), comparable(other, ignoresSecrets));
}

const comparable = (source: PodSource, ignoresSecrets: boolean): unknown =>
  plain({
    pod: shownPod(source.pod),
    network: source.network,
    configMaps: configMapsOf(source),
    secrets: ignoresSecrets ? [] : referred(source, source.secrets),
  });

/** The Pod without what each start gives it. */
export function shownPod({ apiVersion, kind, metadata, spec }: Pod) {
  const { name, namespace, labels, annotations } = metadata;
  return plain({ apiVersion, kind, metadata: { name, namespace, labels, annotations }, spec });
}

export const configMapsOf = (source: PodSource): readonly ConfigMap[] => referred(source, source.configMaps);

/** Without absent values, and as a record on disk has it. */
export const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** The objects that the pod names anywhere, by name. */
export function referred<T extends ConfigMap | Secret>({ pod }: PodSource, objects: readonly T[]): readonly T[] {
  const names = new Set<unknown>();
  collectNames(pod.spec, names);
  return objects
    .filter(({ metadata }) => metadata.namespace === pod.metadata.namespace && names.has(metadata.name))
    .toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name));
}

/** Adds every value of a field that can name a ConfigMap or Secret. A name too many only compares too much. */
function collectNames(value: unknown, names: Set<unknown>): void {
  if (typeof value !== 'object' || value === null) return;
  for (const [key, child] of Object.entries(value)) {
    if (key === 'name' || key === 'secretName') names.add(child);
    else collectNames(child, names);
  }
}
