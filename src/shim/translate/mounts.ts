import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerMount } from '#sandbox/sandbox.ts';
import type { OciMount } from '../bundle/oci-spec.ts';

/** Paths at which the guest mounts file systems of its own. */
const system: ReadonlySet<string> = new Set([
  '/proc',
  '/dev',
  '/dev/pts',
  '/dev/shm',
  '/dev/mqueue',
  '/sys',
  '/sys/fs/cgroup',
  '/run',
]);
/** Files of containerd's for the pod; the guest makes its own, of the same content. */
const podFiles = ['/etc/hosts', '/etc/hostname', '/etc/resolv.conf'];

/** Converts a container's mounts. Errors: `unsupported`. */
export function mountsOf(what: string, mounts: readonly OciMount[], sandboxId: string): ContainerMount[] {
  return mounts.flatMap((mount) => {
    const { destination, source, options } = mount;
    if (!isBind(mount)) {
      if (system.has(destination)) return [];
      throw new PodvmError(
        'unsupported',
        `Cannot create ${what}: a mount of type ${printable(mount.type, 80)} at ${printable(destination)}`,
        { fix: 'Use a volume of the pod, or a bind mount.' },
      );
    }
    if (destination === '/dev/shm') return []; // the guest's own, which its containers share
    if (podFiles.includes(destination) && sandboxId !== '' && source.includes(`/sandboxes/${sandboxId}/`)) return [];
    const readOnly = hasOption(mount, 'ro', 'rro');
    return [
      {
        source: { kind: 'host', path: source, propagation: propagationOf(mount) },
        mountPath: destination,
        readOnly,
        ...(readOnly ? { recursiveReadOnly: options?.includes('rro') === true } : {}),
      },
    ];
  });
}

const hasOption = ({ options }: OciMount, ...names: readonly string[]) =>
  names.some((name) => options?.includes(name) === true);

export const isBind = (mount: OciMount): boolean => mount.type === 'bind' || hasOption(mount, 'bind', 'rbind');

function propagationOf(mount: OciMount): 'private' | 'hostToContainer' | 'bidirectional' {
  if (hasOption(mount, 'shared', 'rshared')) return 'bidirectional';
  return hasOption(mount, 'slave', 'rslave') ? 'hostToContainer' : 'private';
}
