import { findPackageJSON } from 'node:module';
import { dirname, extname } from 'node:path';

/**
 * The program's own files. A checkout runs from its sources; a release (`npm run release`) has each entry point as a
 * bundle of JavaScript, at the same path but for the extension.
 */
const extension = extname(import.meta.filename);

/** Directory of the checkout or the release: that of `package.json`. */
export const programDirectory = dirname(findPackageJSON('..', import.meta.url) ?? import.meta.dirname);

export const isRelease = extension === '.js';

/** Path, in the program's directory, of a program that runs in a process of its own: `src/pod/manifest-process`. */
export const entryPoint = (path: string): string => `${path}${extension}`;

/** File of a release: the packages that are bundled in it, and Node, in the form of `package-lock.json`. */
export const bundledPackages = 'npm-packages.json';
