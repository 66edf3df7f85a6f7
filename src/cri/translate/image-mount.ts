import { isAbsolute } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerMount } from '#sandbox/sandbox.ts';
import type { ImageSpec, Mount } from '../schema/api_pb.ts';

export type ImageVolume = Mount & { readonly image: ImageSpec };

export function isImageVolume(mount: Mount): mount is ImageVolume {
  return mount.image !== undefined;
}

/** Converts the mount of an image; clients pull it with PullImage. Errors: `invalid`. */
export function imageMountOf(what: string, mount: ImageVolume): ContainerMount {
  const { containerPath, hostPath, imageSubPath } = mount;
  const { image } = mount.image;
  const refuse = (why: string) =>
    new PodvmError('invalid', `Cannot create ${what}: its image volume at ${printable(containerPath)} ${why}`);
  if (image === '') throw refuse('has no image');
  if (hostPath !== '') throw refuse('must not have a host path');
  if (!isAbsolute(containerPath)) throw refuse('must be mounted at an absolute path');
  if (isAbsolute(imageSubPath) || imageSubPath.split('/').includes('..')) {
    throw refuse(`has the sub-path ${printable(imageSubPath)}, which leads outside the image`);
  }
  return {
    source: { kind: 'image', image, pullPolicy: 'Never' },
    mountPath: containerPath,
    ...(imageSubPath === '' ? {} : { subPath: imageSubPath }),
    readOnly: true,
  };
}
