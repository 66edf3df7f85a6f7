import { close, constants, fstat, open } from 'node:fs';
import { stat as lookUp } from 'node:fs/promises';
import { Socket } from 'node:net';
import { promisify } from 'node:util';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

const noPath = (path: string) =>
  new PodvmError('unsupported', `Cannot use ${printable(path, 100)} as an input or output: it is not a path`, {
    fix: 'Let containerd write the log: leave the log driver out.',
  });
const noFifo = (path: string) =>
  new PodvmError('invalid', `Cannot use ${printable(path)} as an input or output: it is not a FIFO`);
const notOpen = (path: string, cause: unknown) =>
  new PodvmError('invalid', `Cannot open the FIFO ${printable(path)}`, { cause });

/** Checks a FIFO without opening it, which its reader would take for a writer that leaves. Errors: as `openFifo`. */
export async function checkFifo(path: string): Promise<void> {
  if (!path.startsWith('/')) throw noPath(path);
  const found = await lookUp(path).catch((cause: unknown) => {
    throw notOpen(path, cause);
  });
  if (!found.isFIFO()) throw noFifo(path);
}

const [openFile, closeFile, statFile] = [promisify(open), promisify(close), promisify(fstat)];

/**
 * Opens a FIFO without waiting for another process. Errors: `invalid` for a path that is no FIFO, `unsupported` for a log
 * driver.
 */
export async function openFifo(path: string, flags: number): Promise<number> {
  if (!path.startsWith('/')) throw noPath(path);
  let fd: number | undefined;
  try {
    fd = await openFile(path, flags | constants.O_NONBLOCK);
    if ((await statFile(fd)).isFIFO()) return fd;
  } catch (cause) {
    if (fd !== undefined) await closeFile(fd);
    throw notOpen(path, cause);
  }
  await closeFile(fd);
  throw noFifo(path);
}

/**
 * Opens a FIFO to write to it. The socket has both ends, so that the stream does not end when its reader leaves and
 * comes back; unread bytes wait.
 */
export async function openBothEnds(path: string): Promise<Socket> {
  const fd = await openFifo(path, constants.O_RDWR);
  const socket = new Socket({ fd, readable: false, writable: true });
  socket.on('error', () => undefined);
  return socket;
}
