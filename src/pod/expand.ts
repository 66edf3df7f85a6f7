/**
 * Kubernetes' `$(VAR)` in env values, command and args: `$$` is a dollar, an unknown name stays as it was written.
 * Source: k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go.
 */
export function expand(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replaceAll(/\$\$|\$\(([^)]*)\)/g, (match, name: string | undefined) =>
    name === undefined ? '$' : (variables.get(name) ?? match),
  );
}
