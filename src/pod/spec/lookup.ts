import { PodvmError } from '#base/errors.ts';
import { isPublishedConfigMap } from '../manifest/cluster-data.ts';
import type { PodConfig } from '../pods.ts';

/** Data of one ConfigMap or Secret, as bytes by key. */
export type ConfigData = ReadonlyMap<string, Uint8Array>;

export interface ConfigSource {
  readonly kind: 'ConfigMap' | 'Secret';
  readonly name: string;
  readonly optional: boolean;
}

/** Returns undefined when the object is missing and optional. Errors: `notFound`. */
export function findData(config: PodConfig, namespace: string, source: ConfigSource): ConfigData | undefined {
  const found =
    source.kind === 'ConfigMap' ? configMapData(config, namespace, source) : secretData(config, namespace, source);
  const canLack = source.optional || (source.kind === 'ConfigMap' && isPublishedConfigMap(source.name));
  if (found === undefined && source.kind === 'Secret' && config.hasLostSecrets === true) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot use the Secret ${namespace}/${source.name}: it ended with the node that ran the pod before`,
      { fix: 'Run the pod from its files. Secrets are never written to disk.' },
    );
  }
  if (found === undefined && !canLack) {
    throw new PodvmError('notFound', `Cannot find the ${source.kind} ${namespace}/${source.name}`, {
      fix: `Put the ${source.kind} into the same file as the Pod, or mark its use as optional.`,
    });
  }
  return found;
}

function configMapData(config: PodConfig, namespace: string, source: ConfigSource): ConfigData | undefined {
  const object = configMapOf(config, namespace, source);
  if (object === undefined) return undefined;
  return new Map([...decoded(object.binaryData), ...texts(object.data)]);
}

function configMapOf(config: PodConfig, namespace: string, { name }: ConfigSource) {
  return config.configMaps.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);
}

/**
 * Returns the data that can be variables, which excludes a ConfigMap's binaryData (kubelet's makeEnvironmentVariables).
 * Errors: `notFound`.
 */
export function findVariables(config: PodConfig, namespace: string, source: ConfigSource): ConfigData | undefined {
  const all = findData(config, namespace, source);
  if (source.kind === 'Secret' || all === undefined) return all;
  return new Map(texts(configMapOf(config, namespace, source)?.data ?? {}));
}

function secretData(config: PodConfig, namespace: string, source: ConfigSource): ConfigData | undefined {
  const object = config.secrets.find((it) => it.metadata.name === source.name && it.metadata.namespace === namespace);
  if (object === undefined) return undefined;
  return new Map([...decoded(object.data), ...texts(object.stringData)]); // stringData wins, as in the API server
}

function decoded(data: Readonly<Record<string, string>>): [string, Uint8Array][] {
  return Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64')]);
}

function texts(data: Readonly<Record<string, string>>): [string, Uint8Array][] {
  return Object.entries(data).map(([key, value]) => [key, Buffer.from(value)]);
}

/** Returns one value for a variable. Errors: `notFound` when object or key is missing and not optional. */
export function findKey(
  config: PodConfig,
  namespace: string,
  source: ConfigSource & { readonly key: string },
): Uint8Array | undefined {
  const value = findVariables(config, namespace, source)?.get(source.key);
  if (value === undefined && !source.optional) {
    throw new PodvmError(
      'notFound',
      `Cannot find the key ${JSON.stringify(source.key)} in the ${source.kind} ${namespace}/${source.name}`,
      { fix: `Add the key to the ${source.kind}, or mark its use as optional.` },
    );
  }
  return value;
}
