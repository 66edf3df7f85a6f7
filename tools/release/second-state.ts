import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { readCurrent } from '#setup/setup.ts';

const timeoutMs = 30 * 60_000;
/** Parts made from Debian packages; the others are made from the sources. */
const fromDebian = /^(?:build-root|sysroot|(?:small-)?kernel|crun|(?:small-)?modules)-/;

/** Makes a state directory with the parts of another that were made from Debian packages; set-up makes the others. */
export async function makeSecondState(from: string, to: string, signal: AbortSignal): Promise<void> {
  await mkdir(join(to, 'parts'), { recursive: true });
  const made = (await readdir(join(from, 'parts'))).filter((part) => fromDebian.test(part));
  const paths = made.map((part) => join(from, 'parts', part));
  await run('cp', ['-a', ...paths, join(to, 'parts')], { signal, timeoutMs });
  await mkdir(join(to, 'assets'));
  const current = { ...(await readCurrent(from)), key: 'of none' }; // keeps the generation; the key fits no program
  await writeFile(join(to, 'assets/current.json'), JSON.stringify(current));
}
