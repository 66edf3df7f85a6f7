import { posix } from 'node:path';
import * as v from 'valibot';

/** Maximum bytes of all paths together; they go to the guest in one message. */
const maxBytes = 64 * 1024;
const maxVolumes = 500;
const maxPathBytes = 1024;

/** OCI's `Volumes`: a set of paths, as the keys of an object. */
export const volumesSchema = v.pipe(
  v.record(v.string(), v.unknown()),
  v.transform((volumes) => Object.keys(volumes)),
  v.maxLength(maxVolumes, `more than ${maxVolumes} volumes`),
  v.check((paths) => paths.every((path) => !path.includes('\0')), 'a path has a zero byte'),
  v.check((paths) => paths.every((path) => Buffer.byteLength(path) <= maxPathBytes), 'a path is too long'),
  v.check((paths) => paths.reduce((sum, path) => sum + Buffer.byteLength(path), 0) <= maxBytes, 'too many long paths'),
);

/** Makes paths absolute and normal, as containerd does: relative ones are below the root, and none leads out of it. */
export function volumePaths(declared: readonly string[]): string[] {
  const plain = declared.map((path) => posix.normalize(`/${path}`).replace(/(.)\/$/, '$1'));
  return [...new Set(plain)].filter((path) => path !== '/').sort();
}
