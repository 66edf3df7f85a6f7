import { join } from 'node:path';
import type { Assets } from '#host/assets.ts';
import type { Log } from '#host/log/log.ts';
import { holdAssets, type HeldAssets } from '#setup/hold-assets.ts';
import { silentProgress } from '#setup/progress.ts';
import { areOurs, collectUnused, readCurrent } from '#setup/setup.ts';
import { watchPath } from '#storage/watch-path.ts';
import type { Configuration } from '../configuration/configuration.ts';

export interface FollowOptions {
  readonly config: Pick<Configuration, 'root' | 'repo'>;
  /** Parts in use, which the follower releases. */
  readonly held: HeldAssets;
  readonly log: Log;
  /**
   * Makes new sandboxes use these parts. Resolves once they have been tried; `unused` resolves when no sandbox uses the
   * previous ones. After an error, the previous parts stay in use.
   */
  readonly take: (assets: Assets, signal: AbortSignal) => Promise<{ readonly unused: Promise<void> }>;
}

/**
 * Follows `podvm setup --upgrade` while pods run, until disposed. New pods get the new parts once a template is made of
 * them; running pods keep theirs, which are removed after the last of these pods.
 */
export function followParts(options: FollowOptions): AsyncDisposable {
  const { config, log } = options;
  const follower = new PartsFollower(options);
  const watch = watchPath({
    path: join(config.root, 'assets', 'current.json'),
    onChange: (signal) => follower.look(signal),
    onTrouble: (error) => log.error('cannot check for newer parts', error),
  });
  return {
    async [Symbol.asyncDispose]() {
      await watch[Symbol.asyncDispose]();
      await follower.close();
    },
  };
}

class PartsFollower {
  readonly #options: FollowOptions;
  readonly #ending = new AbortController();
  #held: HeldAssets;
  /** Previous parts that sandboxes still use. */
  readonly #old = new Set<HeldAssets>();
  #hasCollected = false;
  /** Key of the parts that were refused, which is logged once. */
  #refused: string | undefined;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#held = options.held;
  }

  async look(signal: AbortSignal): Promise<void> {
    const { config, log } = this.#options;
    if (!this.#hasCollected) await this.#collect(); // parts that a killed process has left
    this.#hasCollected = true;
    const current = await readCurrent(config.root);
    const inUse = this.#held.assets;
    if (current === undefined || current.key === inUse.key || current.key === this.#refused) return;
    if (!areOurs(current) || current.agent !== inUse.agent) {
      this.#refused = current.key;
      const fix = 'Restart podvm.';
      log.warn('set-up made parts for another version of podvm: new pods do not get them', { fix });
      return;
    }
    await using undo = new AsyncDisposableStack();
    try {
      const held = undo.use(await holdAssets(config, current));
      const { qemuVersion: qemu, kernelVersion: kernel, crunVersion: crun } = held.assets;
      const { unused } = await this.#options.take(held.assets, signal);
      undo.move();
      log.info('new pods get the newer parts', { qemu, kernel, crun });
      this.#replace(held, unused);
    } catch (error) {
      if (signal.aborted) return;
      this.#refused = current.key;
      const fix = 'podvm tries again after the next upgrade, or when it is restarted.';
      log.error('newer parts not used: new pods get the previous ones', error, { fix });
    }
  }

  #replace(held: HeldAssets, unused: Promise<void>): void {
    const before = this.#held;
    this.#held = held;
    this.#old.add(before);
    unused
      .then(() => this.#remove(before))
      .catch((error: unknown) => this.#options.log.error('old parts not released', error));
  }

  /** Releases the old parts and removes those that no other process uses. */
  async #remove(before: HeldAssets): Promise<void> {
    if (this.#ending.signal.aborted) return;
    this.#old.delete(before);
    await before[Symbol.asyncDispose]();
    await this.#collect();
  }

  async #collect(): Promise<void> {
    const { config, log } = this.#options;
    try {
      const removed = await collectUnused({ ...config, progress: silentProgress, signal: this.#ending.signal });
      if (removed.length > 0) log.info('unused parts removed', { parts: removed.join(' ') });
    } catch (error) {
      if (!this.#ending.signal.aborted) log.error('old parts not removed', error); // the next set-up removes them
    }
  }

  /** Releases all parts, even those of running sandboxes: this process ends. */
  async close(): Promise<void> {
    this.#ending.abort();
    for (const held of [this.#held, ...this.#old]) await held[Symbol.asyncDispose]();
  }
}
