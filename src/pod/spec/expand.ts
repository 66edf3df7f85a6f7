import { PodvmError } from '#base/errors.ts';

/** Longest result, in characters: the kernel's limit in bytes for one argument or variable. */
const maxChars = 128 * 1024;

/** Returns the value of `$(VAR)`; undefined leaves the text unchanged. */
export type Lookup = (name: string) => string | undefined;

/**
 * Expands Kubernetes' `$(VAR)` in env values, command and args: `$$` is a dollar, and unknown names stay unchanged.
 * Source: k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go. Errors: `invalid` for a result above the
 * kernel's limit, since a short text can expand to gigabytes. `what` is the subject of error messages.
 */
export function expand(what: string, text: string, lookup: Lookup): string {
  let chars = text.length;
  return text.replaceAll(/\$\$|\$\(([^)]*)\)/g, (match, name: string | undefined) => {
    const value = name === undefined ? '$' : (lookup(name) ?? match);
    chars += value.length - match.length;
    if (chars <= maxChars) return value;
    throw new PodvmError(
      'invalid',
      `Cannot expand ${what}: the result must have at most ${maxChars} characters (E2BIG)`,
      { fix: 'Put large values into files: mount the ConfigMap or Secret as a volume.' },
    );
  });
}

/**
 * Expands the path of a `subPathExpr`. Errors: `invalid` for a missing or empty variable, so that no container gets the
 * whole volume (kubelet's ExpandContainerVolumeMounts).
 */
export function expandPath(what: string, text: string, lookup: Lookup): string {
  const missing = new Set<string>();
  const path = expand(what, text, (name) => {
    const value = lookup(name) ?? '';
    if (value === '') missing.add(name);
    return value;
  });
  if (missing.size === 0) return path;
  const names = [...missing].sort().join(', ');
  throw new PodvmError('invalid', `Cannot expand ${what}: no value for ${names}, got ${text}`, {
    fix: `Set ${names} in the container's env.`,
  });
}
