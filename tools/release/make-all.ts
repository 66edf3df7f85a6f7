import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { silentProgress } from '#setup/progress.ts';
import { makeBundle } from '#setup/bundle/bundle.ts';
import { makeSbom } from '#setup/bundle/sbom.ts';
import { makeDeb } from './deb.ts';
import { makeNodeImage } from './node-image.ts';
import { makeNpmPackage } from './npm-package.ts';
import type { Release } from './release.ts';

/** Makes all forms of the release in `directory`, which it empties first. Returns their names. */
export async function makeAll(release: Release, directory: string): Promise<readonly string[]> {
  const { repo, root, version, epoch } = release;
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const npmPackage = await makeNpmPackage(release, directory);
  const deb = await makeDeb(release, directory);
  const { bundle, image } = await makeImage(release, directory);
  const sbom = `podvm-${version}.sbom.json`;
  await writeFile(join(directory, sbom), await makeSbom({ root, repo, version, date: new Date(epoch * 1000) }));
  const files = [npmPackage, deb, bundle, image, sbom];
  const sums = await Promise.all(files.map(async (file) => `${await sha256Of(join(directory, file))}  ${file}\n`));
  await writeFile(join(directory, 'SHA256SUMS'), sums.join(''));
  return files;
}

/** Makes the bundle and the node image, which contains it. Returns their names. */
export async function makeImage(
  release: Release,
  directory: string,
): Promise<{ readonly bundle: string; readonly image: string }> {
  const bundle = `podvm-${release.version}.bundle`;
  const path = join(directory, bundle);
  await makeBundle({ ...release, progress: silentProgress, warn: () => undefined }, path);
  return { bundle, image: await makeNodeImage(release, directory, path) };
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
