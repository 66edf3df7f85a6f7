import type { FileHandle } from 'node:fs/promises';
import { once } from 'node:events';
import { startChild } from '../process/start-child.ts';

/**
 * Locks an open file or directory; returns false if another process holds the lock. The lock belongs to the open file
 * (flock(2)): it holds for all users of the descriptor, in any namespace, and ends with the last. Node has no such
 * call, so flock(1) makes it. Errors: those of `startChild`.
 */
export async function lockFile(file: FileHandle, mode: 'exclusive' | 'shared' = 'exclusive'): Promise<boolean> {
  const child = await startChild('flock', [`--${mode}`, '--nonblock', '3'], {
    failing: 'Cannot lock a file: cannot run flock',
    stdio: ['ignore', 'ignore', 'ignore', file.fd],
  });
  const [code] = (await once(child, 'exit')) as [number | null]; // SAFE: as Node documents
  return code === 0;
}
