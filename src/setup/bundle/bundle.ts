import { randomBytes } from 'node:crypto';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type Assets, assetsSchema } from '#host/assets.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { type Bundle, readBundle, unpackParts, writeBundle } from './bundle-file.ts';
import type { GuestKernel } from '../guest-kernel.ts';
import { holdAssets } from '../hold-assets.ts';
import { makingPrefix, sweepUnfinished } from '../parts/parts.ts';
import { hashProgramSources } from '../parts/program-sources.ts';
import { recipesVersion } from '../parts/recipes.ts';
import {
  areThere,
  type Current,
  currentWith,
  hasKernel,
  publishCurrent,
  readCurrent,
  readReady,
  refuseMissingTools,
  type SetupOptions,
  smallKernelMissing,
} from '../setup.ts';
import { takeSetupLock } from '../setup-lock.ts';

/** A bundle leaves out the build root, which only makes the other parts and is as large as they are together. */
const leftOut = 'build-root';

export interface BundleOptions extends SetupOptions {
  /** Version of podvm. */
  readonly version: string;
  /** Date of the bundle's files, in seconds since 1970. */
  readonly epoch: number;
}

/**
 * Writes the parts of this version to one file, from which `setUpFrom` sets up other machines. Errors:
 * `failedPrecondition` before set-up, and those of writing.
 */
export async function makeBundle(options: BundleOptions, file: string): Promise<void> {
  const { root, version, epoch, signal, progress } = options;
  const ready = await readReady(options);
  if (ready === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot make a bundle: ${root} has no set-up of this version`, {
      fix: 'Run `podvm setup`.',
    });
  }
  await using held = await holdAssets(options, ready);
  const current = await readCurrent(root);
  if (current === undefined || current.key !== held.assets.key) {
    throw new PodvmError('unavailable', 'Cannot make a bundle: another set-up has just finished', {
      fix: 'Try again.',
    });
  }
  const { agent, generation, kernelVersion, qemuVersion, crunVersion, guestKernel, versions } = current;
  const parts = current.parts.map((part) => basename(part)).filter((name) => !name.startsWith(`${leftOut}-`));
  const made = { agent, generation, kernelVersion, qemuVersion, crunVersion, guestKernel, versions, parts };
  const bundle: Bundle = { format: 1, podvm: version, recipes: recipesVersion, ...made };
  await progress.during('writing the bundle', () =>
    writeBundle(file, { bundle, from: join(root, 'parts'), epoch }, signal),
  );
}

/**
 * Sets up from a bundle, without a network or a compiler. New machines get the kernel that was chosen here before, if the bundle
 * has it, else the one of the machine where it was made. Errors: `corrupt` for a damaged bundle, `failedPrecondition` for one of
 * another version; either leaves the state directory unchanged.
 */
export async function setUpFrom(
  { root, repo, version, warn, progress, signal }: Omit<BundleOptions, 'epoch'>,
  file: string,
): Promise<Assets> {
  await refuseMissingTools('makers');
  const bundle = await readBundle(file, signal);
  const agent = await hashProgramSources(repo);
  if (bundle.agent !== agent || bundle.recipes !== recipesVersion) {
    const [theirs, ours] = [`podvm ${bundle.podvm} (agent ${bundle.agent})`, `podvm ${version} (agent ${agent})`];
    throw new PodvmError('failedPrecondition', `Cannot set up from ${file}: it is for ${theirs}, and this is ${ours}`, {
      fix: 'Make a bundle with this version of podvm: `podvm setup --bundle FILE`.',
    });
  }
  currentOf(root, file, bundle, undefined); // refuses one that lacks a part before anything changes
  await using _lock = await takeSetupLock(root, progress, signal);
  const current = currentOf(root, file, bundle, (await readCurrent(root))?.chosenKernel);
  const parts = join(root, 'parts');
  await mkdir(parts, { recursive: true });
  await sweepUnfinished(parts);
  await progress.during('unpacking the bundle', async () => {
    const making = join(parts, `${makingPrefix}bundle-${randomBytes(4).toString('hex')}`);
    await mkdir(making);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rm(making, { recursive: true, force: true }));
    await unpackParts(file, making, signal);
    await run('sync', ['-f', making], { timeoutMs: 120_000 });
    for (const name of bundle.parts) {
      if (!(await isThere(join(parts, name, 'part.json')))) await rename(join(making, name), join(parts, name));
    }
  });
  const assets = v.parse(assetsSchema, current);
  if (!(await areThere(assets))) {
    throw new PodvmError('corrupt', `Cannot set up from ${file}: files of its parts are missing in ${parts}`, {
      fix: 'Remove that directory if no pod runs, and repeat this.',
    });
  }
  await publishCurrent(root, current);
  if (!hasKernel(current)) warn(smallKernelMissing);
  return assets;
}

/** Errors: `corrupt` for a bundle that lacks a part. */
function currentOf(root: string, file: string, bundle: Bundle, chosen: GuestKernel | undefined): Current {
  const made = { ...bundle, parts: bundle.parts.map((name) => join(root, 'parts', name)) };
  const withChosen = chosen === undefined ? undefined : currentWith(chosen, made);
  const current = withChosen ?? currentWith(bundle.guestKernel, made);
  if (current === undefined) throw new PodvmError('corrupt', `Cannot set up from ${file}: it lacks a part`);
  return chosen === undefined ? current : { ...current, chosenKernel: chosen };
}
