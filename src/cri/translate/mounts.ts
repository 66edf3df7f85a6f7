import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerMount, MountSource } from '#sandbox/sandbox.ts';
import { MountPropagation, type Mount } from '../schema/api_pb.ts';
import { imageMountOf, isImageVolume } from './image-mount.ts';

type Propagation = Extract<MountSource, { readonly kind: 'host' }>['propagation'];

const propagations: ReadonlyMap<MountPropagation, Propagation> = new Map([
  [MountPropagation.PROPAGATION_PRIVATE, 'private'],
  [MountPropagation.PROPAGATION_HOST_TO_CONTAINER, 'hostToContainer'],
  [MountPropagation.PROPAGATION_BIDIRECTIONAL, 'bidirectional'],
]);

/**
 * Converts a container's mounts; `what` names the container in messages. The SELinux label is ignored, since it applies
 * to the host and the guest has none. Errors: `invalid`, `unsupported`.
 */
export function mountsOf(what: string, mounts: readonly Mount[]): ContainerMount[] {
  return mounts.map((mount) => (isImageVolume(mount) ? imageMountOf(what, mount) : hostMountOf(what, mount)));
}

function hostMountOf(what: string, mount: Mount): ContainerMount {
  const { containerPath, hostPath, readonly, recursiveReadOnly } = mount;
  const refuse = (why: string) =>
    new PodvmError('invalid', `Cannot create ${what}: its mount at ${printable(containerPath)} ${why}`);
  if (!isAbsolute(containerPath)) throw refuse('must be at an absolute path');
  if (!isAbsolute(hostPath)) throw refuse(`must have an absolute host path, got ${printable(hostPath)}`);
  const propagation = propagationOf(mount, refuse);
  if (recursiveReadOnly) {
    // CRI's definition of the field requires both.
    if (!readonly) throw refuse('cannot be recursively read-only without being read-only');
    if (propagation !== 'private') throw refuse(`cannot be recursively read-only with propagation ${propagation}`);
  }
  return {
    source: { kind: 'host', path: hostPath, propagation },
    mountPath: containerPath,
    readOnly: readonly,
    // CRI's false requests writable submounts: critest checks that one stays writable.
    ...(readonly ? { recursiveReadOnly } : {}),
  };
}

function propagationOf({ propagation }: Mount, refuse: (why: string) => PodvmError): Propagation {
  const known = propagations.get(propagation);
  if (known !== undefined) return known;
  throw refuse(`has an unknown propagation, got ${String(propagation)}`);
}
