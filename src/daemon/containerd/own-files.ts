import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { readFileIfThere } from '#host/file/files.ts';

/** Mark in the first line of installed files, by which podvm recognizes them. */
export const mark = 'Made by podvm';

/** Whether a file is there and was made by podvm. */
export async function isOwn(path: string): Promise<boolean> {
  return (await readFileIfThere(path))?.includes(mark) === true;
}

/** Errors: `failedPrecondition` for a file that another program made. */
export async function refuseForeign(path: string): Promise<void> {
  const before = await readFileIfThere(path);
  if (before === undefined || before.includes(mark)) return;
  throw new PodvmError('failedPrecondition', `Cannot write ${path}: it exists, and podvm did not make it`, {
    fix: 'Move it away, and try again.',
  });
}

export async function writeOwn(path: string, content: string, mode: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await writeFile(path, content, { mode });
  await chmod(path, mode); // whatever the umask, and the mode of a file that is replaced
}

/** A file that a dry run does not write, as text for the user. */
export const wouldWrite = (path: string, content: string): string =>
  `would write ${path}\n${content.replaceAll(/^(?=.)/gm, '    ')}`;
