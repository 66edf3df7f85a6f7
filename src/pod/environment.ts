import type { PodFacts } from './downward.ts';
import { fieldText } from './downward.ts';
import { expand } from './expand.ts';
import { findData, findKey } from './lookup.ts';
import type { PodConfig } from './pods.ts';
import { resourceText } from './resources.ts';
import type { EnvVar, PodContainer } from './schema/container.ts';
import type { Pod } from './schema/objects.ts';

const defaultMachine = { cpuMillis: 1000, memoryBytes: 0 };

/**
 * A container's environment: envFrom in order, then env in order, later ones winning; `$(VAR)` sees what stands
 * before it. Source: kubelet's makeEnvironmentVariables. Errors: `notFound` for a ConfigMap, Secret or key.
 */
export function environmentOf(
  pod: Pod,
  container: PodContainer,
  config: PodConfig,
  facts: PodFacts,
): ReadonlyMap<string, string> {
  const variables = new Map<string, string>();
  const { namespace } = pod.metadata;
  for (const { prefix, configMapRef, secretRef } of container.envFrom) {
    const kind = configMapRef === undefined ? 'Secret' : 'ConfigMap';
    const ref = configMapRef ?? secretRef;
    if (ref === undefined) continue;
    for (const [key, value] of findData(config, namespace, { kind, ...ref }) ?? []) {
      variables.set(`${prefix}${key}`, textOf(value));
    }
  }
  for (const variable of container.env) {
    const value = valueOf(variable, pod, container, config, facts, variables);
    if (value !== undefined) variables.set(variable.name, value);
  }
  return variables;
}

function valueOf(
  variable: EnvVar,
  pod: Pod,
  container: PodContainer,
  config: PodConfig,
  facts: PodFacts,
  earlier: ReadonlyMap<string, string>,
): string | undefined {
  const from = variable.valueFrom;
  if (from === undefined) return expand(variable.value ?? '', earlier);
  const { namespace } = pod.metadata;
  if (from.fieldRef !== undefined) return fieldText(pod, facts, from.fieldRef.fieldPath);
  if (from.resourceFieldRef !== undefined) {
    const named = from.resourceFieldRef.containerName;
    const all: readonly PodContainer[] = [...pod.spec.initContainers, ...pod.spec.containers];
    const target = all.find((it) => it.name === named) ?? container;
    return resourceText(target, from.resourceFieldRef, config.machine ?? defaultMachine);
  }
  const ref = from.configMapKeyRef ?? from.secretKeyRef;
  if (ref === undefined) return undefined;
  const kind = from.configMapKeyRef === undefined ? 'Secret' : 'ConfigMap';
  const value = findKey(config, namespace, { kind, ...ref });
  return value === undefined ? undefined : textOf(value);
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}
