import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { type Step, stepsSchema } from './requests.ts';

const directory = join(import.meta.dirname, 'corpus');

/** Runs that once broke a server, or that reach far into it: each is asked again by the unit tests. */
export async function readCorpus(): Promise<ReadonlyMap<string, readonly Step[]>> {
  const files = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort();
  const found = files.map(
    async (name) => [name, v.parse(stepsSchema, JSON.parse(await readFile(join(directory, name), 'utf8')))] as const,
  );
  return new Map(await Promise.all(found));
}

/** Keeps it among them, and returns where. */
export async function keep(run: readonly Step[]): Promise<string> {
  const text = `${JSON.stringify(run, undefined, 2)}\n`;
  const path = join(directory, `found-${createHash('sha256').update(text).digest('hex').slice(0, 12)}.json`);
  await writeFile(path, text);
  return path;
}
