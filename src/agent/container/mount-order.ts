/** A mount in OCI's config. */
export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** A path with single slashes, without `.`, `..` and a trailing slash. */
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
 * Sorts mounts into the order in which they must be made: a mount below another comes after it, in any requested order.
 * The later of two mounts at one path stays on top. Same as containerd (internal/cri/opts, orderedMounts).
 */
export function parentsFirst(mounts: readonly OciMount[]): OciMount[] {
  const clean = mounts.map((mount) => ({ ...mount, destination: cleanPath(mount.destination) }));
  return clean.sort((a, b) => depthOf(a.destination) - depthOf(b.destination)); // a stable sort
}

/** The system's own mounts, without those that `mounts` replace and those in a /dev that `mounts` replace. */
export function notReplaced(system: readonly OciMount[], mounts: readonly OciMount[]): OciMount[] {
  const taken = new Set(mounts.map(({ destination }) => cleanPath(destination)));
  return system.filter(
    ({ destination }) => !taken.has(destination) && !(taken.has('/dev') && destination.startsWith('/dev/')),
  );
}
