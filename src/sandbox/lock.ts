import { stat } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { PodvmError } from '#base/errors.ts';
import { isServed } from '#host/is-served.ts';

/** How long the holder of a lock may take to say who it is, in `ms`. */
const answerMs = 2000;

/**
 * One process at a time works on a directory. The lock is an abstract unix socket named after the directory's device
 * and inode: the kernel takes it back when its holder dies, however that happens, and nothing is left to go stale.
 * Whoever connects is told the holder's pid. Errors: `busy`, naming the holder.
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  const name = await nameOf(directory);
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // whoever asked has gone
    socket.end(String(process.pid), () => socket.destroy()); // a caller that stays would keep us from closing
  });
  server.unref();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(name, resolve);
    });
  } catch (cause) {
    const isHeld = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE';
    throw isHeld
      ? new PodvmError('busy', `Cannot use the state directory ${directory}: ${await holderOf(name)} works in it`, {
          fix: 'Use that one (podvm ps shows its pods), or choose another directory with --root.',
        })
      : new PodvmError('internal', `Cannot lock the state directory ${directory}`, { cause });
  }
  return {
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
      }),
  };
}

/** Whether a process works on the directory. */
export async function isLocked(directory: string): Promise<boolean> {
  return await isServed(await nameOf(directory));
}

async function nameOf(directory: string): Promise<string> {
  const { dev, ino } = await stat(directory, { bigint: true });
  return `\0podvm-sandboxes-${dev}-${ino}`;
}

async function holderOf(name: string): Promise<string> {
  const socket = connect(name);
  socket.setTimeout(answerMs, () => socket.destroy());
  const answer = await text(socket).catch(() => ''); // it ends just now, or is not ours
  return /^\d{1,10}$/.test(answer) ? `another podvm (process ${answer})` : 'another podvm';
}
