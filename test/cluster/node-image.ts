import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { makeImage } from '../../tools/release/make-all.ts';
import { readRelease } from '../../tools/release/release.ts';
import { repo } from '../vm/cli-node.ts';

/** State directory with what `podvm setup` of the checkout made. */
export const setUpRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';

/** Makes the node image of the checkout in a directory, as that `version`; default: its own. Returns its OCI layout. */
export async function makeNodeImage(directory: string, version?: string): Promise<string> {
  await mkdir(directory);
  const release = await readRelease(repo, setUpRoot, new AbortController().signal);
  const { image } = await makeImage({ ...release, ...(version === undefined ? {} : { version }) }, directory);
  return join(directory, basename(image, '.tar'));
}
