import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { builtProgramsKey } from './built-programs.ts';

/** Paths that the agent and the file server are built from: their sources, shared sources, the build, and its tools. */
const sources = [
  'src/agent',
  'src/engine',
  'src/file-server',
  'src/wire',
  'src/base',
  'src/setup/parts/build-program.ts',
  'package-lock.json',
];

/**
 * Hash of these sources. A checkout reads the few small files each time (a few ms), so that no edit is missed; a
 * release has the hash of the sources from which its programs were built.
 */
export async function hashProgramSources(repo: string): Promise<string> {
  const built = await builtProgramsKey(repo);
  if (built !== undefined) return built;
  const files = (await Promise.all(sources.map((source) => filesBelow(repo, source)))).flat().sort();
  const contents = await Promise.all(files.map((file) => readFile(join(repo, file))));
  const hash = createHash('sha256');
  for (const [index, file] of files.entries()) {
    const content = contents[index] ?? Buffer.alloc(0);
    hash.update(`${file}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex').slice(0, 16);
}

async function filesBelow(repo: string, path: string): Promise<readonly string[]> {
  if (/\.(ts|json)$/.test(path)) return [path];
  const entries = await readdir(join(repo, path), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.test.ts') && /\.(ts|c|h)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name).slice(repo.length + 1));
}
