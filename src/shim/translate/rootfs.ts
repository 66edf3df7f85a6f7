import { readdir } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Mount } from '../schema/generated/types/mount_pb.ts';

/**
 * Returns the directories of a snapshot, topmost first, as containerd's overlayfs snapshotter describes them. Writes of
 * containers stay in their machine, so the snapshot's own writable directory must be empty. Errors: `unsupported`,
 * `invalid`.
 */
export async function snapshotDirectoriesOf(what: string, mounts: readonly Mount[]): Promise<readonly string[]> {
  const [mount] = mounts;
  if (mount === undefined || mounts.length > 1) throw unsupported(what, `${mounts.length} mounts`);
  if (mount.type === 'bind') return [mount.source]; // an image of one layer
  if (mount.type !== 'overlay') throw unsupported(what, `a mount of type ${printable(mount.type, 80)}`);
  const optionOf = (name: string) =>
    mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = optionOf('upperdir');
  const written = upper === undefined ? [] : await readdir(upper).catch(() => []);
  if (written.length > 0)
    throw unsupported(what, `a writable layer that has files already, as ${printable(written[0] ?? '')}`);
  const lower = optionOf('lowerdir') ?? '';
  if (lower === '') throw new PodvmError('invalid', `Cannot create ${what}: its overlay has no layers`);
  return lower.split(':');
}

const unsupported = (what: string, got: string) =>
  new PodvmError('unsupported', `Cannot create ${what}: its root file system must be one overlay, got ${got}`, {
    fix: 'Let containerd use its overlayfs snapshotter for the runtime podvm, and start a new container of the image.',
  });
