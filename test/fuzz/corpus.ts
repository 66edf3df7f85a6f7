import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const root = join(import.meta.dirname, 'corpus');

/** Runs that broke a target, or that reach far into it, by file name. Each fuzzing begins with them. */
export async function readCorpus(target: string): Promise<ReadonlyMap<string, unknown>> {
  const directory = join(root, target);
  const files = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort();
  const found = files.map(
    async (name) => [name, JSON.parse(await readFile(join(directory, name), 'utf8')) as unknown] as const,
  );
  return new Map(await Promise.all(found));
}

/** Adds a run, and returns the path of its file. */
export async function keep(target: string, run: unknown): Promise<string> {
  const text = `${JSON.stringify(run, undefined, 2)}\n`;
  await mkdir(join(root, target), { recursive: true });
  const path = join(root, target, `found-${createHash('sha256').update(text).digest('hex').slice(0, 12)}.json`);
  await writeFile(path, text);
  return path;
}
