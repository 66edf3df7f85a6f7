import { stat } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { announce, heldBy, isAnnounced } from '#host/announcement.ts';

/**
 * One process at a time works on a directory. The lock is a name (`announce`) made of the directory's device and inode;
 * its holder tells callers its pid. Errors: `busy`, naming the holder.
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  const name = await nameOf(directory);
  const lock = await announce(name, String(process.pid));
  if (lock !== undefined) return lock;
  throw new PodvmError('busy', `Cannot use the state directory ${directory}: ${await holderOf(name)} works in it`, {
    fix: 'Use that one (podvm ps shows its pods), or choose another directory with --root.',
  });
}

/** Whether a process works on the directory. */
export async function isLocked(directory: string): Promise<boolean> {
  return await isAnnounced(await nameOf(directory));
}

async function nameOf(directory: string): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `podvm-sandboxes-${dev}-${ino}`;
}

async function holderOf(name: string): Promise<string> {
  const answer = await heldBy(name);
  return /^\d{1,10}$/.test(answer) ? `another podvm (process ${answer})` : 'another podvm';
}
