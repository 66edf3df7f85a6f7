import { isUtf8 } from 'node:buffer';
import { PodvmError } from '#base/errors.ts';
import { createProcessRoom } from '#sandbox/container/process-size.ts';
import type { PodFacts } from './downward.ts';
import { fieldText } from './downward.ts';
import { expand } from './expand.ts';
import { type ConfigSource, findKey, findVariables } from './lookup.ts';
import type { PodConfig } from '../pods.ts';
import { resourceText } from './resources.ts';
import type { EnvVar, PodContainer } from '../schema/container.ts';
import type { Pod } from '../schema/objects.ts';

const defaultMachine = { cpuMillis: 1000, memoryBytes: 0 };

/**
 * Builds a container's environment: envFrom in order, then env in order, where later ones win; `$(VAR)` refers to
 * earlier ones. Source: kubelet's makeEnvironmentVariables. Errors: `notFound` for a ConfigMap, Secret or key;
 * `invalid` for a value that is not text, and for an environment above the kernel's limits.
 */
export function environmentOf(
  pod: Pod,
  container: PodContainer,
  config: PodConfig,
  facts: PodFacts,
): ReadonlyMap<string, string> {
  const variables = new Map<string, string>();
  const room = createProcessRoom(`container ${container.name}`);
  const set = (name: string, value: string) => {
    room.takeVariable(name, value, variables.get(name));
    variables.set(name, value);
  };
  const { namespace } = pod.metadata;
  for (const { prefix, configMapRef, secretRef } of container.envFrom) {
    const kind = configMapRef === undefined ? 'Secret' : 'ConfigMap';
    const ref = configMapRef ?? secretRef;
    if (ref === undefined) continue;
    const source = { kind, ...ref } as const;
    for (const [key, value] of findVariables(config, namespace, source) ?? []) {
      set(`${prefix}${key}`, textOf(value, namespace, source, key));
    }
  }
  for (const variable of container.env) {
    const value = valueOf(variable, pod, container, config, facts, variables);
    if (value !== undefined) set(variable.name, value);
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
  if (from === undefined) {
    const what = `the variable ${variable.name} of container ${container.name}`;
    return expand(what, variable.value ?? '', (name) => earlier.get(name));
  }
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
  const source = { kind, ...ref } as const;
  const value = findKey(config, namespace, source);
  return value === undefined ? undefined : textOf(value, namespace, source, ref.key);
}

/**
 * Decodes a value, since a Secret may hold any bytes. Errors: `invalid` if it is not UTF-8, which the runtime's JSON
 * requires.
 */
function textOf(bytes: Uint8Array, namespace: string, { kind, name }: ConfigSource, key: string): string {
  if (isUtf8(bytes)) return Buffer.from(bytes).toString('utf8');
  throw new PodvmError(
    'invalid',
    `Cannot use the key ${JSON.stringify(key)} of the ${kind} ${namespace}/${name} as a variable: its value is not UTF-8`,
    { fix: `Mount the ${kind} as a volume: a file can hold any bytes.` },
  );
}
