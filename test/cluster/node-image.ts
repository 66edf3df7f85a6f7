import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { makeImage } from '../../tools/release/make-all.ts';
import { readRelease } from '../../tools/release/release.ts';
import { repo } from '../vm/cli-node.ts';

/** Makes the node image of the checkout in a directory. Returns its OCI layout. */
export async function makeNodeImage(directory: string, setUpRoot: string): Promise<string> {
  await mkdir(directory);
  const release = await readRelease(repo, setUpRoot, new AbortController().signal);
  const { image } = await makeImage(release, directory);
  return join(directory, basename(image, '.tar'));
}
