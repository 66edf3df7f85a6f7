export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

/**
 * Returns Kubernetes' default policy: `Always` for the tag `latest` or none, else `IfNotPresent`. An image of the host
 * `localhost` (without a port) has no registry and is never pulled: it was loaded or built here.
 */
export function pullPolicyOf(image: string, written: PullPolicy | undefined): PullPolicy {
  if (written !== undefined) return written;
  if (image.startsWith('localhost/')) return 'Never';
  if (image.includes('@')) return 'IfNotPresent';
  const tag = /:([^:/]+)$/.exec(image)?.[1];
  return tag === undefined || tag === 'latest' ? 'Always' : 'IfNotPresent';
}
