import type { FileHandle } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PodvmError } from '#base/errors.ts';

/**
 * Locks an open file or directory, or answers false if others have it locked. The lock is the open file's (flock(2)): it
 * holds for all who have the descriptor, in any namespace, and ends with the last of them. flock(1) is given the
 * descriptor because Node cannot ask for a lock itself. Errors: `failedPrecondition` if there is no flock(1).
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
