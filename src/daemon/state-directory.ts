import { constants } from 'node:fs';
import { access, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { assertReachable } from '#vm/qemu/jail/jail.ts';

/**
 * Makes the state directory if it is missing and checks it, so that faults are reported first. Errors:
 * `failedPrecondition` if it cannot be written or jailed machines cannot reach it.
 */
export async function openStateDirectory(root: string): Promise<void> {
  process.umask(0o022); // modes of new files are those in the code, whatever the user's umask
  try {
    await mkdir(root, { recursive: true, mode: 0o755 });
    await access(root, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot write to the state directory ${root}: ${reasonOf(cause)}`, {
      fix: 'Make the directory writable for root, or choose another with --root.',
    });
  }
  await assertReachable(join(root, 'machine'));
}

function reasonOf(cause: unknown): string {
  const reasons: Readonly<Record<string, string>> = {
    EROFS: 'its file system is read-only',
    EEXIST: 'it is not a directory',
    ENOTDIR: 'it is not a directory',
    ENOSPC: 'its file system is full',
    EACCES: 'permission denied',
  };
  return reasons[(cause as NodeJS.ErrnoException).code ?? ''] ?? messageOf(cause); // SAFE: only read
}
