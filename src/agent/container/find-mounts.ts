import { mountAt, parseMountInfo } from '#base/mount-table.ts';
import type { ExaminedMounts } from '#wire/examination.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import { limits } from '#wire/limits.ts';
import { open } from '#engine/constants.ts';
import { type Beneath, descriptorPath, type Descriptors, type Files } from '#engine/engine.ts';
import { cleanPath } from './mount-order.ts';

/** A container with more mounts is not examined (`EFBIG`): the agent does nothing else in that time. */
const maxBytes = 256 * 1024;

type Parts = Pick<Files, 'readText' | 'readLink'> & Pick<Beneath, 'openBeneath'> & Pick<Descriptors, 'close'>;
type WantedMount = Pick<ContainerParams['mounts'][number], 'destination' | 'volume' | 'readOnly'>;

/** A container's first process, the descriptor of its merged root, and the mounts that it was to get. */
export interface MountedContainer {
  readonly pid: number;
  readonly root: number;
  readonly mounts: readonly WantedMount[];
}

/** Looks for wanted mounts in the mount table of a process. Does not touch the mounted file systems, which may hang. */
export function findMounts(parts: Parts, { pid, root, mounts: wanted }: MountedContainer): ExaminedMounts {
  const mounts = parseMountInfo(parts.readText(`/proc/${pid}/mountinfo`, maxBytes));
  return wanted.slice(0, limits.maxExaminedMounts).map(({ destination, volume, readOnly }) => {
    const path = cleanPath(destination);
    const found = mountAt(mounts, path) ?? mountAt(mounts, withoutLinks(parts, root, path));
    const { isReadOnly } = found ?? {};
    return { volume, isWantedReadOnly: readOnly, ...(isReadOnly === undefined ? {} : { found: { isReadOnly } }) };
  });
}

/**
 * The path as the kernel has it: of a mount below /var/run, which is a symlink in most images, the point is below /run.
 * Resolved in the root as the agent mounted it, without what the container has mounted in its own.
 */
function withoutLinks(parts: Parts, root: number, path: string): string {
  let fd: number | undefined;
  try {
    fd = parts.openBeneath(root, path, open.path);
    return parts.readLink(descriptorPath(fd)).slice(parts.readLink(descriptorPath(root)).length);
  } catch {
    return path; // it is below another mount, or was removed
  } finally {
    if (fd !== undefined) parts.close(fd);
  }
}
