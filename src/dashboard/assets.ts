import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { isRelease, programDirectory } from '#host/program-files.ts';
import type { Asset } from './bundle-client.ts';

/** Directory of a release with the bundled files; a checkout bundles them when the dashboard starts. */
export const assetsDirectory = 'src/dashboard/assets';

const types: Readonly<Record<string, string>> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export const typeOf = ({ name }: Asset): string => types[extname(name)] ?? 'application/octet-stream';

/** The files by name. */
export async function readAssets(): Promise<ReadonlyMap<string, Asset>> {
  return new Map((await (isRelease ? stored() : bundled())).map((asset) => [asset.name, asset]));
}

async function stored(): Promise<readonly Asset[]> {
  const directory = join(programDirectory, assetsDirectory);
  const names = await readdir(directory);
  return await Promise.all(names.map(async (name) => ({ name, bytes: await readFile(join(directory, name)) })));
}

async function bundled(): Promise<readonly Asset[]> {
  const { bundleClient } = await import('./bundle-client.ts'); // a release has no bundler
  return (await bundleClient(programDirectory)).assets;
}
