import { isAbsolute } from 'node:path';
import type { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ContainerMount } from '#sandbox/sandbox.ts';
import type { ImageSpec, Mount } from '../schema/api_pb.ts';

export type ImageVolume = Mount & { readonly image: ImageSpec };

export function isImageVolume(mount: Mount): mount is ImageVolume {
  return mount.image !== undefined;
}

/** An image that is mounted; whoever wants another has called PullImage. */
export function imageMountOf(mount: ImageVolume, refuse: (why: string) => PodvmError): ContainerMount {
  const { containerPath, hostPath, imageSubPath } = mount;
  const { image } = mount.image;
  if (image === '') throw refuse('names no image');
  if (hostPath !== '') throw refuse('names an image, and a path of the host too');
  if (isAbsolute(imageSubPath) || imageSubPath.split('/').includes('..')) {
    throw refuse(`has the sub-path ${printable(imageSubPath)}, which leads out of its image`);
  }
  return {
    source: { kind: 'image', image, pullPolicy: 'Never' },
    mountPath: containerPath,
    ...(imageSubPath === '' ? {} : { subPath: imageSubPath }),
    readOnly: true,
  };
}
