import { nameOf, type Reference } from '#base/image-reference.ts';

/** Credentials for a registry, or a part of it, in the formats of docker's config.json and Kubernetes' pull Secrets. */
export interface RegistryLogin {
  /** `quay.io`, `quay.io/team`, `*.example.com:5000`, `https://index.docker.io/v1/`. */
  readonly registry: string;
  readonly username?: string;
  readonly password?: string;
  /** Used instead of name and password. */
  readonly identityToken?: string;
}

/** Maximum logins that are tried for one pull. */
const maxTried = 8;
const dockerHub: readonly string[] = ['index.docker.io', 'docker.io', 'registry-1.docker.io'];

/**
 * Returns the logins that match an image, longest path first, in the order of kubelets
 * (pkg/credentialprovider/keyring.go).
 */
export function loginsFor(reference: Reference, logins: readonly RegistryLogin[]): readonly RegistryLogin[] {
  const name = nameOf(reference);
  return logins
    .map((login) => ({ login, key: keyOf(login.registry) }))
    .filter(({ key }) => matches(key, name))
    .toSorted((a, b) => b.key.length - a.key.length)
    .slice(0, maxTried)
    .map(({ login }) => login);
}

/** Returns the registry without scheme, version and trailing slash; Docker Hub has several names. */
export function keyOf(registry: string): string {
  const [host = '', ...path] = registry
    .replace(/^https?:\/\//, '')
    .replace(/\/$/, '')
    .replace(/\/v[12]$/, '')
    .split('/');
  return [dockerHub.includes(host) ? 'docker.io' : host, ...path].join('/');
}

/** Returns the keys of an auth file that apply to a name, longest first: itself, its namespaces, its registry. */
export function keysOf(name: string): string[] {
  const parts = name.split('/');
  return parts.map((_part, at) => parts.slice(0, parts.length - at).join('/'));
}

/** Each label of the host may be a glob for one label; the path is a prefix. */
function matches(key: string, name: string): boolean {
  const [keyHost = '', ...keyPath] = key.split('/');
  const [host = '', ...path] = name.split('/');
  const keyLabels = keyHost.split('.');
  const labels = host.split('.');
  if (keyHost === '' || keyLabels.length !== labels.length) return false;
  return (
    keyLabels.every((label, index) => globMatches(label, labels[index] ?? '')) &&
    path.join('/').startsWith(keyPath.join('/'))
  );
}

/** `*` matches any characters; the pieces between are searched in turn, so that no pattern takes long. */
function globMatches(glob: string, label: string): boolean {
  const [first = '', ...pieces] = glob.split('*');
  if (pieces.length === 0) return glob === label;
  const last = pieces.pop() ?? '';
  if (!label.startsWith(first) || !label.endsWith(last) || label.length < first.length + last.length) return false;
  let at = first.length;
  for (const piece of pieces) {
    const found = label.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return at <= label.length - last.length;
}

/** An entry of docker's config.json. */
export function authEntry({ username = '', password = '', identityToken }: RegistryLogin): Record<string, string> {
  if (identityToken !== undefined) return { identitytoken: identityToken };
  return { auth: Buffer.from(`${username}:${password}`).toString('base64') };
}
