/** A mount as OCI's config has it. */
export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** A path with single slashes, without `.`, `..` and a slash at its end. */
export function cleanPath(path: string): string {
  const names: string[] = [];
  for (const name of path.split('/')) {
    if (name === '..') names.pop();
    else if (name !== '' && name !== '.') names.push(name);
  }
  return `/${names.join('/')}`;
}

const depthOf = (path: string): number => (path === '/' ? 0 : path.split('/').length - 1);

/**
 * Mounts in the order in which they have to be made: what lies below another comes after it, whatever the order they were
 * asked for in. Of two at one path the later stays on top. As containerd does it (internal/cri/opts, orderedMounts).
 */
export function parentsFirst(mounts: readonly OciMount[]): OciMount[] {
  const clean = mounts.map((mount) => ({ ...mount, destination: cleanPath(mount.destination) }));
  return clean.sort((a, b) => depthOf(a.destination) - depthOf(b.destination)); // a stable sort
}

/** Those of the system's own mounts that `mounts` leave to it: not one that they replace, nor one in a /dev of theirs. */
export function notReplaced(system: readonly OciMount[], mounts: readonly OciMount[]): OciMount[] {
  const taken = new Set(mounts.map(({ destination }) => cleanPath(destination)));
  return system.filter(
    ({ destination }) => !taken.has(destination) && !(taken.has('/dev') && destination.startsWith('/dev/')),
  );
}
