import { create } from '@bufbuild/protobuf';
import { messageOf, PodvmError, kindOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Answer, Verbs } from '../rpc/service.ts';
import {
  type ContainerConfig,
  type ImageSchema,
  ImageService,
  type ImageSpec,
  ImageStatusRequestSchema,
  PullImageRequestSchema,
} from '../schema/api_pb.ts';
import type { Runtime } from './choose-runtime.ts';
import type { Delegate } from './delegate.ts';

type Image = Answer<typeof ImageSchema>;

/** Images of one runtime, by any of their names. */
interface Store {
  readonly find: (reference: string, signal: AbortSignal) => Promise<Image | undefined>;
  /** Returns the id. */
  readonly pull: (reference: string, signal: AbortSignal) => Promise<string>;
}

const none = Buffer.alloc(0);

/**
 * Brings images to the runtime that uses them. A kubelet asks whether an image is present without saying for which pod,
 * and then leaves out the pull that would bring it to the right runtime.
 */
export class DelegateImages {
  readonly #stores: Readonly<Record<Runtime, Store>>;

  constructor(own: Verbs<typeof ImageService>, delegate: Delegate) {
    this.#stores = { podvm: storeOfOwn(own), delegate: storeOfDelegate(delegate) };
  }

  /**
   * Pulls images of a container that are only in the other runtime's store, by their digest, and puts their ids into the
   * configuration. Returns whether that changed it. Errors: `failedPrecondition` if such a pull fails.
   */
  async bringTo(runtime: Runtime, config: ContainerConfig, signal: AbortSignal): Promise<boolean> {
    let isChanged = false;
    for (const image of [config.image, ...config.mounts.map((mount) => mount.image)]) {
      if (image === undefined || image.image === '') continue;
      const id = await this.#bring(runtime, image, signal);
      if (id === undefined || id === image.image) continue;
      image.image = id;
      isChanged = true;
    }
    return isChanged;
  }

  /**
   * Returns the id of the image in the runtime's store; undefined if the reference finds it there already, or in no
   * store.
   */
  async #bring(runtime: Runtime, { image }: ImageSpec, signal: AbortSignal): Promise<string | undefined> {
    const to = this.#stores[runtime];
    if ((await to.find(image, signal)) !== undefined) return undefined;
    const other = runtime === 'podvm' ? 'delegate' : 'podvm';
    const found = await this.#stores[other].find(image, signal);
    if (found === undefined) return undefined;
    const names = [...(found.repoDigests ?? []), ...(found.repoTags ?? [])];
    for (const name of names) {
      const same = await to.find(name, signal);
      if (same?.id !== undefined) return same.id;
    }
    const [name] = names;
    if (name === undefined) return undefined;
    try {
      return await to.pull(name, signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw new PodvmError(
        'failedPrecondition',
        `Cannot use image ${printable(name, 300)}: ${placeOf(other)} has it, ${placeOf(runtime)} does not, and pulling it ` +
          `failed: ${messageOf(cause)}`,
        { fix: 'Use imagePullPolicy Always, with which the kubelet pulls it for the pod, with its credentials.' },
      );
    }
  }
}

const placeOf = (runtime: Runtime): string => (runtime === 'podvm' ? 'podvm' : 'the delegate');

const storeOfOwn = (own: Verbs<typeof ImageService>): Store => ({
  find: async (image, signal) => {
    try {
      return (await own.imageStatus(create(ImageStatusRequestSchema, { image: { image } }), signal, none)).image;
    } catch (error) {
      if (kindOf(error) === 'invalid') return undefined; // a name of another form
      throw error;
    }
  },
  pull: async (image, signal) => {
    const { imageRef = '' } = await own.pullImage(create(PullImageRequestSchema, { image: { image } }), signal, none);
    return imageRef;
  },
});

/** Images of the delegate; none while it is away. */
const storeOfDelegate = (delegate: Delegate): Store => ({
  find: async (image, signal) =>
    (await delegate.askPart(ImageService.method.imageStatus, { image: { image } }, signal))?.image,
  pull: async (image, signal) =>
    (await delegate.ask(ImageService.method.pullImage, { image: { image } }, signal)).imageRef,
});
