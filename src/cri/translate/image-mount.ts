import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerMount } from '#sandbox/sandbox.ts';
import type { ImageSpec, Mount } from '../schema/api_pb.ts';

export type ImageVolume = Mount & { readonly image: ImageSpec };

export function isImageVolume(mount: Mount): mount is ImageVolume {
  return mount.image !== undefined;
}

/** An image that is mounted; whoever wants another has called PullImage. Errors: `invalid`. */
export function imageMountOf(what: string, mount: ImageVolume): ContainerMount {
  const { containerPath, hostPath, imageSubPath } = mount;
  const { image } = mount.image;
  const refuse = (why: string) =>
    new PodvmError('invalid', `Cannot create ${what}: its image volume at ${printable(containerPath)} ${why}`);
  if (image === '') throw refuse('names no image');
  if (hostPath !== '') throw refuse('has a path of the host too');
  if (!isAbsolute(containerPath)) throw refuse('is not mounted at an absolute path');
  if (isAbsolute(imageSubPath) || imageSubPath.split('/').includes('..')) {
    throw refuse(`has the sub-path ${printable(imageSubPath)}, which leads out of it`);
  }
  return {
    source: { kind: 'image', image, pullPolicy: 'Never' },
    mountPath: containerPath,
    ...(imageSubPath === '' ? {} : { subPath: imageSubPath }),
    readOnly: true,
  };
}
