import { PodvmError } from '#base/errors.ts';

/** Sources that are shared by key: made for the first user, released after the last. */
export interface SharedSources<T extends AsyncDisposable> extends AsyncDisposable {
  /**
   * Holds the value of that key, made by `make` unless a usable one exists. Waits for another caller that makes or
   * releases it. Errors: those of `make`, for the caller whose call made it.
   */
  hold(key: string, make: () => Promise<T>): Promise<Hold<T>>;
  /** The values that have a holder. */
  readonly values: readonly T[];
}

export interface Hold<T> extends AsyncDisposable {
  readonly value: T;
}

interface Entry<T> {
  readonly key: string;
  readonly value: T;
  holders: number;
}

/**
 * Reports a value that cannot be released to `onStuck`, and tries again when the whole is disposed of. A value that is
 * no longer usable stays for its holders, and is made again for the next.
 */
export function createSharedSources<T extends AsyncDisposable>(
  onStuck: (key: string, error: unknown) => void,
  isUsable: (value: T) => boolean = () => true,
): SharedSources<T> {
  const entries = new Map<string, Entry<T>>();
  /** All entries with a holder, including those that a newer one replaced. */
  const held = new Set<Entry<T>>();
  /** Keys that are being made or released. */
  const changes = new Map<string, Promise<unknown>>();
  const stuck: T[] = [];

  const change = async <R>(key: string, what: () => Promise<R>): Promise<R> => {
    const mine = what();
    const settled = mine.catch(() => undefined);
    changes.set(key, settled);
    try {
      return await mine;
    } finally {
      changes.delete(key);
    }
  };
  const release = async (entry: Entry<T>): Promise<void> => {
    const { key, value } = entry;
    entry.holders -= 1;
    if (entry.holders > 0 || !held.delete(entry)) return;
    if (entries.get(key) !== entry) return await giveBack(key, value);
    entries.delete(key);
    await change(key, () => giveBack(key, value));
  };
  const giveBack = async (key: string, value: T): Promise<void> => {
    try {
      await value[Symbol.asyncDispose]();
    } catch (error) {
      stuck.push(value);
      onStuck(key, error);
    }
  };
  const holdOf = (entry: Entry<T>): Hold<T> => {
    entry.holders += 1;
    let isHeld = true;
    return {
      value: entry.value,
      async [Symbol.asyncDispose]() {
        if (!isHeld) return;
        isHeld = false;
        await release(entry);
      },
    };
  };
  let isClosed = false;
  return {
    get values() {
      return [...held].map(({ value }) => value);
    },
    async hold(key, make) {
      for (let before = changes.get(key); before !== undefined; before = changes.get(key)) await before;
      if (isClosed) throw new PodvmError('cancelled', 'Cannot attach a volume: the sandbox is being stopped');
      const there = entries.get(key);
      if (there !== undefined && isUsable(there.value)) return holdOf(there);
      return await change(key, async () => {
        const entry = { key, value: await make(), holders: 0 };
        entries.set(key, entry);
        held.add(entry);
        return holdOf(entry);
      });
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      await Promise.all(changes.values());
      const left = [...stuck.splice(0), ...[...held].map(({ value }) => value)];
      entries.clear();
      held.clear();
      const failed: T[] = [];
      const results = await Promise.allSettled(
        left.map(async (value) => {
          try {
            await value[Symbol.asyncDispose]();
          } catch (error) {
            failed.push(value);
            throw error;
          }
        }),
      );
      stuck.push(...failed); // tried again by the next call
      const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
      if (errors.length > 0) throw new AggregateError(errors, 'volumes not released');
    },
  };
}
