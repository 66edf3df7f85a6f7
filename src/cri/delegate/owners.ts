import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { KnownPods } from '../known-pods.ts';
import type { Runtime } from './choose-runtime.ts';
import type { DelegateLists } from './delegate-lists.ts';

/** A sandbox id of ours: no other runtime makes such ids. */
const ownSandboxId = /^sb-[0-9a-f]+$/;

/**
 * Finds the runtime that has an id, or the only match for a prefix. An id that is not ours counts as the delegate's.
 */
export class Owners {
  readonly #own: KnownPods;
  readonly #lists: DelegateLists;

  constructor(own: KnownPods, lists: DelegateLists) {
    this.#own = own;
    this.#lists = lists;
  }

  /** Errors: `invalid` for a prefix of several ids. */
  async ofPod(id: string, signal: AbortSignal): Promise<Runtime> {
    const found = this.#own.findPod(id)?.sandbox.id;
    if (found === undefined) return id === '' || ownSandboxId.test(id) ? 'podvm' : 'delegate';
    if (found !== id) refuseBoth('pod sandbox', id, await this.#lists.pods(undefined, signal));
    return 'podvm';
  }

  async ofContainer(id: string, signal: AbortSignal): Promise<Runtime> {
    const found = this.#own.findContainer(id)?.container.status.id;
    if (found === undefined) return id === '' ? 'podvm' : 'delegate';
    if (found !== id) refuseBoth('container', id, await this.#lists.containers(undefined, signal));
    return 'podvm';
  }
}

function refuseBoth(what: string, prefix: string, others: readonly { readonly id: string }[]): void {
  const other = others.find(({ id }) => id.startsWith(prefix));
  if (other === undefined) return;
  throw new PodvmError(
    'invalid',
    `Cannot find ${what} ${printable(prefix, 80)}: the prefix matches an id of podvm and one of the delegate`,
    { fix: 'Use a longer prefix of the id.' },
  );
}
