import { PodvmError } from '#base/errors.ts';

/** Longest result, in characters: the kernel takes no argument or variable of more bytes than that. */
const maxChars = 128 * 1024;

/** What `$(VAR)` stands for; undefined: it stays as it was written. */
export type Lookup = (name: string) => string | undefined;

/**
 * Kubernetes' `$(VAR)` in env values, command and args: `$$` is a dollar, an unknown name stays as it was written.
 * Source: k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go. Errors: `invalid` for a result that no process
 * could be given: a short text can ask for gigabytes. `what` says what is expanded.
 */
export function expand(what: string, text: string, lookup: Lookup): string {
  let chars = text.length;
  return text.replaceAll(/\$\$|\$\(([^)]*)\)/g, (match, name: string | undefined) => {
    const value = name === undefined ? '$' : (lookup(name) ?? match);
    chars += value.length - match.length;
    if (chars <= maxChars) return value;
    throw new PodvmError(
      'invalid',
      `Cannot expand ${what}: its variables make it longer than ${maxChars} characters (E2BIG)`,
      { fix: 'Put large values into files: mount the ConfigMap or Secret as a volume.' },
    );
  });
}

/**
 * The path of a `subPathExpr`. Errors: `invalid` for a variable that is not there or empty, so that no container gets the
 * directory of all (kubelet's ExpandContainerVolumeMounts).
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
  throw new PodvmError('invalid', `Cannot expand ${what}: there is no value for ${names}, got ${text}`, {
    fix: `Give ${names} a value in the container's env.`,
  });
}
