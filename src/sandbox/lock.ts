import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { PodvmError } from '#base/errors.ts';

/**
 * One process at a time works on a directory. The lock is an abstract unix socket named after the directory's device
 * and inode: the kernel takes it back when its holder dies, however that happens, and nothing is left to go stale.
 * Errors: `busy`.
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  const { dev, ino } = await stat(directory, { bigint: true });
  const server = createServer((socket) => socket.destroy());
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        cause.code === 'EADDRINUSE'
          ? new PodvmError('busy', `Cannot use the state directory ${directory}: another podvm works in it`, {
              cause,
              fix: 'Use that one (podvm ps shows its pods), or choose another directory with --root.',
            })
          : new PodvmError('internal', `Cannot lock the state directory ${directory}`, { cause }),
      );
    });
    server.listen(`\0podvm-sandboxes-${dev}-${ino}`, resolve);
  });
  return {
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
      }),
  };
}
