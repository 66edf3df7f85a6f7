import { findPackageJSON } from 'node:module';
import { readFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';

/**
 * The program's own files. A checkout runs from its sources; a release (`npm run release`) has a JavaScript bundle for
 * each entry point, at the same path with another extension.
 */
const extension = extname(import.meta.filename);

/** Directory of the checkout or release, which contains `package.json`. */
export const programDirectory = dirname(findPackageJSON('..', import.meta.url) ?? import.meta.dirname);

/** Version of the program in a directory, by its `package.json`. */
export async function programVersion(directory: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as { version: string };
  return version;
}

export const isRelease = extension === '.js';

/** Path in the program's directory, such as `src/pod/manifest/manifest-process`, of a program that runs in its own process. */
export const entryPoint = (path: string): string => `${path}${extension}`;

/** File of a release that lists its bundled packages and Node, in the form of `package-lock.json`. */
export const bundledPackages = 'npm-packages.json';
