import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';

/**
 * A directory of one run, in which the suite's own temporary files are, too: specs that fail leave bind mounts behind,
 * of directories of this host perhaps. So it is removed only when nothing is mounted below it any more.
 */
export interface WorkDirectory extends AsyncDisposable {
  readonly path: string;
  /** For `TMPDIR`. */
  readonly temporary: string;
}

export async function makeWorkDirectory(): Promise<WorkDirectory> {
  const path = await mkdtemp('/var/tmp/podvm-critest-');
  await chmod(path, 0o711); // skopeo runs as an unprivileged user
  const temporary = join(path, 'tmp');
  await mkdir(temporary);
  return { path, temporary, [Symbol.asyncDispose]: () => remove(path) };
}

async function remove(path: string): Promise<void> {
  for (const mount of (await mountsBelow(path)).toReversed()) await run('umount', ['--lazy', mount]);
  const left = await mountsBelow(path);
  if (left.length > 0) throw new PodvmError('busy', `Cannot remove ${path}: there are mounts in it, got ${left[0]}`);
  await rm(path, { recursive: true, force: true });
}

/** In the order in which they were made. */
async function mountsBelow(path: string): Promise<readonly string[]> {
  const points = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' ')[4] ?? '');
  return points
    .map((point) =>
      point.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .filter((point) => point.startsWith(`${path}/`));
}
