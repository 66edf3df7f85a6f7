import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readConfiguration } from '#daemon/configuration.ts';
import { makeNpmPackage } from './npm-package.ts';
import { readRelease, type Release } from './release.ts';

/** `npm run release`: makes every form of a release in `dist/`, as docs/install.md describes. */
const repo = join(import.meta.dirname, '../..');

async function makeAll(release: Release, directory: string): Promise<readonly string[]> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const files = [await makeNpmPackage(release, directory)];
  const sums = await Promise.all(
    files.map(async (file) => {
      const content = await readFile(join(directory, file));
      return `${createHash('sha256').update(content).digest('hex')}  ${file}\n`;
    }),
  );
  await writeFile(join(directory, 'SHA256SUMS'), sums.join(''));
  return files;
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());
const { root } = readConfiguration({}, process.env, repo);
const release = await readRelease(repo, root, interruption.signal);
for (const file of await makeAll(release, join(repo, 'dist'))) process.stdout.write(`dist/${file}\n`);
