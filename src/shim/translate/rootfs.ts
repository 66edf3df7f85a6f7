import { readdir } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Mount } from '../schema/generated/types/mount_pb.ts';

/**
 * Annotation of the launcher's information that has containerd hand over the mounts of its erofs snapshotter as they are:
 * otherwise it makes them on the host for each container.
 */
export const ownMounts = { 'containerd.io/runtime-allow-mounts': 'mkdir/*,format/*,mkfs/*,erofs' };

/**
 * Returns the layers of a snapshot, topmost first: directories as containerd's overlayfs snapshotter describes them, or EROFS
 * files as its erofs snapshotter does. Writes of containers stay in their machine, so the snapshot's own writable directory must
 * be empty. Errors: `unsupported`, `invalid`.
 */
export async function snapshotLayersOf(what: string, mounts: readonly Mount[]): Promise<readonly string[]> {
  const files = mounts.filter(({ type }) => type === 'erofs');
  // A file system for what the container writes, which the scratch disk replaces.
  const others = mounts.filter(({ type }) => type !== 'erofs' && type !== 'mkfs/ext4');
  const [mount] = others;
  if (others.length > 1 || (mount === undefined && files.length !== 1))
    throw unsupported(what, `${mounts.length} mounts`);
  const kind = mount?.type.split('/').at(-1);
  if (mount !== undefined && kind !== 'overlay' && kind !== 'bind')
    throw unsupported(what, `a mount of type ${printable(mount.type, 80)}`);
  if (files.some(({ options }) => options.some((option) => option.startsWith('X-containerd.dmverity='))))
    throw unsupported(what, 'layers with dm-verity, which are not verified');
  await checkUpper(what, mount);
  if (files.length > 0) return files.flatMap(filesOf);
  if (mount === undefined || mount.type !== kind) throw unsupported(what, `a mount of type ${mount?.type}`);
  if (kind === 'bind') return [mount.source]; // an image of one layer
  const lower = optionOf(mount, 'lowerdir') ?? '';
  if (lower === '') throw new PodvmError('invalid', `Cannot create ${what}: its overlay has no layers`);
  return lower.split(':');
}

const optionOf = ({ options }: Mount, name: string) =>
  options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);

/** The files of one mount, topmost first: a mount of merged metadata names its layers as devices, the lowest first. */
function filesOf({ source, options }: Mount): readonly string[] {
  const devices = options.filter((option) => option.startsWith('device=')).map((option) => option.slice(7));
  return devices.length === 0 ? [source] : devices.toReversed();
}

async function checkUpper(what: string, mount: Mount | undefined): Promise<void> {
  const upper = mount === undefined ? undefined : optionOf(mount, 'upperdir');
  const written = upper === undefined ? [] : await readdir(upper).catch(() => []);
  if (written.length > 0)
    throw unsupported(what, `a writable layer that has files already, as ${printable(written[0] ?? '')}`);
}

const unsupported = (what: string, got: string) =>
  new PodvmError('unsupported', `Cannot create ${what}: its root file system must be one overlay, got ${got}`, {
    fix: 'Let containerd use its overlayfs or erofs snapshotter for the runtime podvm, and start a new container of the image.',
  });
