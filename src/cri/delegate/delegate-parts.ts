import type { CriParts } from '../parts.ts';
import type { Delegate } from './delegate.ts';
import type { DelegateImages } from './delegate-images.ts';
import type { DelegateLists } from './delegate-lists.ts';
import type { Owners } from './owners.ts';

/** Parts that route calls to podvm or to its delegate. */
export interface DelegateParts {
  readonly delegate: Delegate;
  readonly lists: DelegateLists;
  readonly images: DelegateImages;
  readonly owners: Owners;
  readonly streaming: Pick<CriParts['streaming'], 'relayedPortForwardUrl'>;
}
