import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import type { RunEvent } from '#api/run.ts';
import { type Terminal, write } from './terminal.ts';

/** Prints a difference as `diff -u` does. */
export async function printDifference(
  { object, before, after }: RunEvent & { event: 'differs' },
  { stdout }: Terminal,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-diff-'));
  try {
    const paths = [join(directory, 'now'), join(directory, 'applied')] as const;
    await writeFile(paths[0], before, { mode: 0o600 });
    await writeFile(paths[1], after, { mode: 0o600 });
    const labels = ['--label', `${object} now`, '--label', `${object} applied`];
    const { stdout: text } = await run('diff', ['-u', ...labels, '--', ...paths], { okCodes: [0, 1] });
    await write(stdout, text === '' ? `${object}: its Secrets or its network differ\n` : text);
  } finally {
    await rm(directory, { recursive: true });
  }
}
