import { open, type FileHandle } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import type { Assets } from '#host/assets.ts';
import { readCurrent, readReady, type SetupOptions } from './setup.ts';

/** Parts that no set-up removes until this is disposed of, or this process ends, in any way. */
export interface HeldAssets extends AsyncDisposable {
  readonly assets: Assets;
}

/** Each further try means that another set-up finished meanwhile. */
const maxTries = 10;

/**
 * Holds the parts of these assets, or those that have replaced them meanwhile. A part is held by a descriptor of its
 * directory, which `collectParts` finds. `collectParts` checks after other parts have become current, and this function
 * checks whether its parts are still current after opening them, so that one of the two notices the other. Errors:
 * `failedPrecondition` when there are none to hold.
 */
export async function holdAssets(options: Pick<SetupOptions, 'root' | 'repo'>, assets: Assets): Promise<HeldAssets> {
  let wanted = assets;
  for (let tries = 0; tries < maxTries; tries += 1) {
    const held = await holdIfCurrent(options.root, wanted);
    if (held !== undefined) return held;
    wanted = (await readReady(options)) ?? wanted;
  }
  throw new PodvmError('failedPrecondition', 'Cannot use the assets of set-up: they were removed', {
    fix: 'Run `podvm setup`.',
  });
}

async function holdIfCurrent(root: string, { key }: Assets): Promise<HeldAssets | undefined> {
  await using undo = new AsyncDisposableStack();
  const current = await readCurrent(root);
  if (current?.key !== key) return undefined;
  for (const part of current.parts) {
    const handle: FileHandle | undefined = await open(part, 'r').catch(() => undefined); // removed meanwhile
    if (handle === undefined) return undefined;
    undo.defer(() => handle.close());
  }
  const still = await readCurrent(root);
  if (still?.key !== key) return undefined;
  const owned = undo.move();
  return { assets: current, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
