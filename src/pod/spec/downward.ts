import type { Pod } from '../schema/objects.ts';

/** Facts that are known only when the machine runs. */
export interface PodFacts {
  readonly uid: string;
  readonly nodeName: string;
  readonly hostIP: string | undefined;
  readonly podIPs: readonly string[];
}

/** Returns the text of a pod field; `path` has passed the schema. */
export function fieldText(pod: Pod, facts: PodFacts, path: string): string {
  const { metadata, spec } = pod;
  const subscript = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path);
  if (subscript !== null) {
    const map = subscript[1] === 'labels' ? metadata.labels : metadata.annotations;
    return map[subscript[2] ?? ''] ?? '';
  }
  const values: Readonly<Record<string, string>> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': facts.uid,
    'metadata.labels': mapText(metadata.labels),
    'metadata.annotations': mapText(metadata.annotations),
    'spec.nodeName': spec.nodeName ?? facts.nodeName,
    'spec.serviceAccountName': spec.serviceAccountName,
    'status.hostIP': facts.hostIP ?? '',
    'status.hostIPs': facts.hostIP ?? '',
    'status.podIP': facts.podIPs[0] ?? '',
    'status.podIPs': facts.podIPs.join(','),
  };
  return values[path] ?? '';
}

/** Formats a map as sorted `key="value"` lines, as the downward API does. */
function mapText(map: Readonly<Record<string, string>>): string {
  return Object.keys(map)
    .sort()
    .map((key) => `${key}=${JSON.stringify(map[key])}`)
    .join('\n');
}
