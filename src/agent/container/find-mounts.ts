import { mountAt, parseMountInfo } from '#base/mount-table.ts';
import type { ExaminedMounts } from '#wire/examination.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import { limits } from '#wire/limits.ts';
import type { Files } from '#engine/engine.ts';
import { cleanPath } from './mount-order.ts';

/** A container with more mounts is not examined (`EFBIG`): the agent does nothing else in that time. */
const maxBytes = 256 * 1024;

type WantedMount = Pick<ContainerParams['mounts'][number], 'destination' | 'volume' | 'readOnly'>;

/** Looks for wanted mounts in the mount table of a process. Does not touch the file systems, which may hang. */
export function findMounts(
  parts: Pick<Files, 'readText'>,
  { pid, mounts: wanted }: { readonly pid: number; readonly mounts: readonly WantedMount[] },
): ExaminedMounts {
  const mounts = parseMountInfo(parts.readText(`/proc/${pid}/mountinfo`, maxBytes));
  return wanted.slice(0, limits.maxExaminedMounts).map(({ destination, volume, readOnly }) => {
    const found = mountAt(mounts, cleanPath(destination));
    const { isReadOnly } = found ?? {};
    return { volume, isWantedReadOnly: readOnly, ...(isReadOnly === undefined ? {} : { found: { isReadOnly } }) };
  });
}
