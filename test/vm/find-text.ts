import { lstat, readdir, readFile } from 'node:fs/promises';
import { run } from '#host/process/run.ts';

/** Regular files below it; links (to what set-up made) are followed only when asked. */
export async function filesOf(directory: string, follow = false): Promise<readonly string[]> {
  const { stdout } = await run('find', [...(follow ? ['-L'] : []), directory, '-type', 'f'], { okCodes: [0, 1] });
  return stdout.split('\n').filter(Boolean);
}

/** Returns the files that contain one of the texts. */
export async function filesWith(texts: readonly string[], files: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const file of files) {
    if ((await lstat(file).catch(() => undefined)) === undefined) continue; // it went meanwhile
    const patterns = texts.flatMap((text) => ['-e', text]);
    // Lines end with NUL, so that the holes of a disk take no time.
    const { stdout } = await run('grep', ['-c', '-z', '-a', '-F', ...patterns, '--', file], { okCodes: [0, 1, 2] });
    if (Number(stdout) > 0) found.push(file);
  }
  return found;
}

/** Returns `cmdline of 77` for each process, except this one, that has one of the texts there or in its environment. */
export async function processesWith(texts: readonly string[]): Promise<readonly string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const told = await Promise.all(
    pids.flatMap((pid) =>
      ['cmdline', 'environ'].map(async (file) => {
        const text = await readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '');
        return texts.some((form) => text.includes(form)) ? [`${file} of ${pid}`] : [];
      }),
    ),
  );
  return told.flat();
}
