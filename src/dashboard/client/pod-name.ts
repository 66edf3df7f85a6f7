export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

export const keyOf = ({ namespace, name }: PodName): string => `${namespace}/${name}`;

/** Path of a pod in the API, and of its page. */
export const podPath = ({ namespace, name }: PodName): string =>
  `/pods/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
