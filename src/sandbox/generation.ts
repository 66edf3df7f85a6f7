import type { StartContext } from './start/start-sandbox.ts';

/**
 * Parts of one set-up from which sandboxes are started, with the template and the pool of machines made from them. An
 * upgrade replaces it for new sandboxes; a sandbox keeps its generation until it is removed.
 */
export class Generation {
  readonly context: StartContext;
  #sandboxes = 0;
  #isRetired = false;
  readonly #unused = Promise.withResolvers<void>();

  constructor(context: StartContext) {
    this.context = context;
  }

  /** Counts a sandbox until the returned function is called. */
  enter(): () => void {
    this.#sandboxes += 1;
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      this.#sandboxes -= 1;
      this.#settleIfUnused();
    };
  }

  /** Ends its use for new sandboxes. Settles when the last one is removed. */
  async retire(): Promise<void> {
    this.#isRetired = true;
    this.#settleIfUnused();
    await this.#unused.promise;
  }

  /** Ends waiting machines and the making of templates. */
  async close(): Promise<void> {
    await this.context.pool[Symbol.asyncDispose]();
    await this.context.templates.settled();
  }

  #settleIfUnused(): void {
    if (this.#isRetired && this.#sandboxes === 0) this.#unused.resolve();
  }
}
