import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { open } from '#engine/constants.ts';
import { codeOf, descriptorPath, type Beneath, type Descriptors, type Files } from '#engine/engine.ts';

type Parts = Pick<Beneath, 'openBeneath'> &
  Pick<Descriptors, 'close'> &
  Pick<Files, 'readLink' | 'status' | 'makeDirectory'>;

export interface ContainerRoot {
  /** Descriptor of the merged root. No process of the container runs yet. */
  readonly fd: number;
  readonly path: string;
  /** Gives a new directory to the container's root user. */
  own(path: string): void;
}

/** Mount points of the runtime itself, with everything below. */
const ofTheRuntime = ['/proc', '/sys', '/dev'];
const maxLinks = 40;

/**
 * Makes the directories that an image declares as volumes if no layer has them, and returns their paths without
 * symbolic links. Leaves out those that the pod mounts, or that lie below a mount of the pod. Symbolic links of the
 * image resolve inside its root. Errors: `failedPrecondition` when a file is in the way.
 */
export function makeImageVolumes(
  parts: Parts,
  root: ContainerRoot,
  volumes: readonly string[],
  destinations: readonly string[],
): string[] {
  const taken = destinations.map((path) => realPath(parts, root, path));
  const wanted = volumes
    .map((path) => realPath(parts, root, path))
    .filter((path) => path !== '/' && ![...ofTheRuntime, ...taken].some((above) => isIn(path, above)));
  const paths = [...new Set(wanted)].sort(); // parents first
  for (const path of paths) makeDirectories(parts, root, path);
  return paths;
}

const isIn = (path: string, above: string) => above === '/' || path === above || path.startsWith(`${above}/`);

/** Returns a path with all symbolic links followed inside the root. A part that does not exist is kept as written. */
function realPath(parts: Parts, root: ContainerRoot, path: string, links = 0): string {
  const found = openPath(parts, root, path);
  if (found !== undefined) return found;
  const cut = path.lastIndexOf('/');
  const [parent, name] = [path.slice(0, cut), path.slice(cut + 1)];
  const above = parent === '' ? '/' : realPath(parts, root, parent, links);
  const here = joined(above, name);
  if (parts.status(`${root.path}${here}`)?.kind !== 'symlink') return here;
  // The link cannot be opened, since its target does not exist.
  if (links >= maxLinks) throw inTheWay(path, 'too many symbolic links');
  const target = parts.readLink(`${root.path}${here}`);
  return realPath(parts, root, joined(target.startsWith('/') ? '/' : above, target), links + 1);
}

function openPath(parts: Parts, root: ContainerRoot, path: string): string | undefined {
  if (path === '/' || path === '') return '/';
  let fd: number;
  try {
    fd = parts.openBeneath(root.fd, path, open.path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw inTheWay(path, codeOf(error) ?? 'it cannot be opened');
  }
  try {
    return parts.readLink(descriptorPath(fd)).slice(root.path.length) || '/';
  } finally {
    parts.close(fd);
  }
}

/** Joins without `.`, `..` and empty names. */
function joined(directory: string, path: string): string {
  const names: string[] = [];
  for (const name of `${directory}/${path}`.split('/')) {
    if (name === '..') names.pop();
    else if (name !== '' && name !== '.') names.push(name);
  }
  return `/${names.join('/')}`;
}

function makeDirectories(parts: Parts, root: ContainerRoot, path: string): void {
  for (let at = path.indexOf('/', 1); at >= 0; at = path.indexOf('/', at + 1)) {
    makeDirectory(parts, root, path, path.slice(0, at));
  }
  makeDirectory(parts, root, path, path);
}

function makeDirectory(parts: Parts, root: ContainerRoot, volume: string, path: string): void {
  const whole = `${root.path}${path}`;
  const kind = parts.status(whole)?.kind;
  if (kind === 'directory') return;
  if (kind !== undefined) throw inTheWay(volume, `${printable(path)} of the image is not a directory`);
  parts.makeDirectory(whole);
  root.own(whole);
}

const inTheWay = (path: string, why: string) =>
  new PodvmError('failedPrecondition', `Cannot make the image's volume ${printable(path)}: ${why}`);
