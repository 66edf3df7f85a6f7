import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import type { ImageStore } from '#image/images.ts';
import type { Link } from '#link/link.ts';
import type { AttachedSource, FoundSource, HeldSource } from './host-mode.ts';
import type { ImageDisks } from './image-disks.ts';
import { createPhases } from '../state/phases.ts';
import type { ContainerMount, MountSource, RegistryLogin } from '../sandbox.ts';

export type ImageMount = ContainerMount & { readonly source: Extract<MountSource, { readonly kind: 'image' }> };

/** Brings an image that a container mounts into the guest, as a disk, like those that containers run from. */
export interface ImageMode {
  /** Pulls it if its policy says so. It stays in use until the machine is gone. Errors: those of images and machine. */
  find(mount: ImageMount, signal: AbortSignal): Promise<FoundSource>;
  /** Takes over an image that an earlier process attached. */
  adopt(held: HeldSource): AttachedSource;
}

export interface ImageModeParts {
  readonly images: Pick<ImageStore, 'hold'>;
  readonly imageDisks: ImageDisks;
  readonly guest: Pick<Link, 'call'>;
  readonly monotonicNs: () => bigint;
}

/** Deadline for removing a volume, in `ms`; the guest does not wait for anything. */
const removeTimeoutMs = 10_000;

export function createImageMode({ images, imageDisks, guest, monotonicNs }: ImageModeParts): ImageMode {
  const plug = async ({ source }: ImageMount, signal: AbortSignal): Promise<string> => {
    const image = await images.hold(source.image, source.pullPolicy, signal, loginsOf(source));
    return await imageDisks.attach(image, createPhases(monotonicNs), signal);
  };
  const attachedAs = (source: AttachedSource['guest']): AttachedSource => ({
    guest: source,
    async [Symbol.asyncDispose]() {
      await guest.call('removeVolume', { name: source.volume }, AbortSignal.timeout(removeTimeoutMs));
    },
  });
  return {
    adopt: (held) => attachedAs(held.guest),
    async find(mount, signal) {
      const disk = await plug(mount, signal).catch((cause: unknown) => {
        throw mountFailed(mount, cause);
      });
      return {
        mode: 'image',
        key: disk,
        async attach(volume, attaching) {
          await guest.call('createVolume', { name: volume, kind: 'image', disk }, attaching);
          return attachedAs({ volume });
        },
        [Symbol.asyncDispose]: () => Promise.resolve(), // the machine owns the disk
      };
    },
  };
}

function loginsOf({ pullLogins }: ImageMount['source']): { readonly logins?: readonly RegistryLogin[] } {
  return pullLogins === undefined ? {} : { logins: pullLogins };
}

/** Uses CRI's reason, by which users find it in a pod's events (cri-api, `ErrImageVolumeMountFailed`). */
function mountFailed({ source, mountPath }: ImageMount, cause: unknown): PodvmError {
  const fix = cause instanceof PodvmError ? cause.fix : undefined;
  return new PodvmError(
    kindOf(cause),
    `ImageVolumeMountFailed: Cannot mount image ${source.image} at ${mountPath}: ${messageOf(cause)}`,
    { cause, ...(fix === undefined ? {} : { fix }) },
  );
}
