import { PodvmError } from '#base/errors.ts';

/** Returns the API path of a pod named `NAME` or `NAMESPACE/NAME`. Errors: `invalid`. */
export function podPath(name: string): string {
  const parts = name.split('/');
  if (parts.length > 2 || parts.some((part) => part === '')) {
    throw new PodvmError('invalid', `Cannot find a pod: expected NAME or NAMESPACE/NAME, got ${name}`, {
      fix: 'See `podvm ps` for the names.',
    });
  }
  const [namespace, pod] = parts.length === 2 ? parts : ['_', parts[0]];
  return `/v1/pods/${encodeURIComponent(namespace ?? '_')}/${encodeURIComponent(pod ?? '')}`;
}

/** Whether the word of kubectl for pods is meant, which `podvm ps` lists. */
export const arePods = (kinds: string | undefined): boolean => /^(po|pods?)$/i.test(kinds ?? '');

/** The pods that these words name, once each: without kubectl's word for pods before them, as in `describe pod web db`. */
export function podNames(words: readonly string[]): readonly string[] {
  return [...new Set(words.length > 1 && arePods(words[0]) ? words.slice(1) : words)];
}
