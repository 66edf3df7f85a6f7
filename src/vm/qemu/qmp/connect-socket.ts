import { constants } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { retry } from '#host/wait.ts';

/** Longest path that fits into `sun_path` with its closing zero. */
const maxSocketPathBytes = 107;
const retryMs = 4;

/**
 * Connects to a unix socket in a directory that an unprivileged VMM can write to. A path that is not a socket, such as
 * a link to another socket, is refused. Errors: `unavailable`, `cancelled`.
 */
export async function connectSocket(path: string, signal: AbortSignal): Promise<Socket> {
  const found = await lstat(path).catch((cause: unknown) => {
    throw new PodvmError('unavailable', `Cannot connect to ${path}: no such socket`, { cause });
  });
  if (!found.isSocket()) throw new PodvmError('unavailable', `Cannot connect to ${path}: it is not a socket`);
  if (Buffer.byteLength(path) <= maxSocketPathBytes) return await dialInTurn(path, path, signal);
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await dialInTurn(`/proc/self/fd/${directory.fd}/${basename(path)}`, path, signal);
  } finally {
    await directory.close();
  }
}

/** Retries until the socket is served, `signal` aborts or `stillWanted` returns false. */
export async function connectWhenListening(
  path: string,
  stillWanted: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<Socket> {
  return await retry(() => connectSocket(path, signal), stillWanted, { everyMs: retryMs, signal });
}

/**
 * Retries on EAGAIN: QEMU serves one connection at a time and refuses the next until it has seen the end of the last.
 */
async function dialInTurn(address: string, path: string, signal: AbortSignal): Promise<Socket> {
  const isTaken = (error: unknown) => {
    const cause = error instanceof PodvmError ? error.cause : undefined;
    return cause instanceof Error && 'code' in cause && cause.code === 'EAGAIN';
  };
  return await retry(() => dial(address, path, signal), isTaken, { everyMs: retryMs, signal });
}

function dial(address: string, path: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new PodvmError('cancelled', `Cannot connect to ${path}: cancelled`, { cause: signal.reason }));
      return;
    }
    const socket = connect(address);
    const abort = () => socket.destroy(new PodvmError('cancelled', `Cannot connect to ${path}: cancelled`));
    const failed = (cause: Error) => {
      signal.removeEventListener('abort', abort);
      reject(
        cause instanceof PodvmError
          ? cause
          : new PodvmError('unavailable', `Cannot connect to ${path}: ${cause.message}`, { cause }),
      );
    };
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', failed);
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      socket.removeListener('error', failed);
      socket.on('error', () => undefined); // 'close' follows and is what owners listen to
      resolve(socket);
    });
  });
}
