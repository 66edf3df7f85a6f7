import { imageFsInfo } from './image-service/image-fs-info.ts';
import { imageStatus } from './image-service/image-status.ts';
import { listImages } from './image-service/list-images.ts';
import { pullImage } from './image-service/pull-image.ts';
import { removeImage } from './image-service/remove-image.ts';
import { streamImages } from './image-service/stream-images.ts';
import type { CriParts } from './parts.ts';
import type { Verbs } from './rpc/service.ts';
import type { ImageService } from './schema/api_pb.ts';

/** The handlers of CRI's ImageService. */
export function imageVerbs(parts: CriParts): Verbs<typeof ImageService> {
  return {
    listImages: (request) => listImages(parts, request),
    streamImages: (request) => streamImages(parts, request),
    imageStatus: (request) => imageStatus(parts, request),
    pullImage: (request, signal) => pullImage(parts, request, signal),
    removeImage: (request) => removeImage(parts, request),
    imageFsInfo: () => imageFsInfo(parts),
  };
}
