import type { FileHandle } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PodvmError } from '#base/errors.ts';

/**
 * Locks an open file or directory; returns false if another process holds the lock. The lock belongs to the open file
 * (flock(2)): it holds for all users of the descriptor, in any namespace, and ends with the last. flock(1) does the
 * call, which Node lacks. Errors: `failedPrecondition` if flock(1) is missing.
 */
export async function lockFile(file: FileHandle, mode: 'exclusive' | 'shared' = 'exclusive'): Promise<boolean> {
  const child = spawn('flock', [`--${mode}`, '--nonblock', '3'], { stdio: ['ignore', 'ignore', 'ignore', file.fd] });
  try {
    const [code] = (await once(child, 'exit')) as [number | null]; // SAFE: as Node documents
    return code === 0;
  } catch (cause) {
    throw new PodvmError('failedPrecondition', 'Cannot lock a file: cannot run flock', {
      cause,
      fix: 'Install the Debian package util-linux.',
    });
  }
}
