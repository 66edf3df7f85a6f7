import { open, stat } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { announce, heldBy } from '#host/socket/announcement.ts';
import { lockFile } from '#host/file/file-lock.ts';

/**
 * Locks a directory for one process of the node at a time, in any network namespace. The holder also announces its pid,
 * which callers in its network namespace can ask for. Errors: `busy`, naming the holder.
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  await using held = new AsyncDisposableStack();
  const file = held.use(await open(directory, 'r'));
  const name = await nameOf(directory);
  if (!(await lockFile(file))) {
    throw new PodvmError('busy', `Cannot use the state directory ${directory}: ${await holderOf(name)} works in it`, {
      fix: 'Use that one (podvm ps shows its pods), or choose another directory with --root.',
    });
  }
  const announcement = await announce(name, String(process.pid)); // optional: the lock also holds without it
  if (announcement !== undefined) held.use(announcement);
  return held.move();
}

/** Whether a process holds the directory's lock. */
export async function isLocked(directory: string): Promise<boolean> {
  await using file = await open(directory, 'r');
  return !(await lockFile(file, 'shared'));
}

async function nameOf(directory: string): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `podvm-sandboxes-${dev}-${ino}`;
}

async function holderOf(name: string): Promise<string> {
  const answer = await heldBy(name);
  return /^\d{1,10}$/.test(answer) ? `another podvm (process ${answer})` : 'another podvm';
}
