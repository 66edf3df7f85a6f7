import type { Log } from '#host/log/log.ts';
import type { KnownPods } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { EncodedAnswer, Verbs } from '../rpc/service.ts';
import type { ImageService, RuntimeService } from '../schema/api_pb.ts';
import type { Delegate } from './delegate.ts';
import { DelegateImages } from './delegate-images.ts';
import { DelegateLists } from './delegate-lists.ts';
import { Owners } from './owners.ts';
import { routeImages } from './route-images.ts';
import { routeRuntime } from './route-runtime.ts';

/** The verbs of both services. */
interface AllVerbs<Encoded = never> {
  readonly runtime: Verbs<typeof RuntimeService, Encoded>;
  readonly images: Verbs<typeof ImageService, Encoded>;
}

interface Site {
  /** Pods of podvm. */
  readonly pods: KnownPods;
  /** Directory for the next process's data about the delegate. */
  readonly directory: string;
  readonly streaming: CriParts['streaming'];
  readonly log: Log;
}

/** Puts the delegate beside our verbs: a client sees one runtime. */
export async function routeVerbs(
  own: AllVerbs,
  delegate: Delegate,
  { pods, directory, streaming, log }: Site,
): Promise<AllVerbs<EncodedAnswer>> {
  const lists = await DelegateLists.open(delegate, directory, log);
  const images = new DelegateImages(own.images, delegate);
  const owners = new Owners(pods, lists);
  return {
    runtime: routeRuntime(own.runtime, { delegate, lists, images, owners, streaming }),
    images: routeImages(own.images, { delegate, lists, pods }),
  };
}
