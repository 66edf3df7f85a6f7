import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { outliveAcceptErrors } from './accept-errors.ts';

/** Time for the holder to answer, in `ms`. */
const answerMs = 2000;
const maxAnswerBytes = 4096;

/**
 * Takes a name that only one process of a network namespace can hold at a time: an abstract unix socket (unix(7)),
 * which the kernel frees when its holder dies. Callers receive `answer`. Returns undefined when another process holds
 * the name. Disposing frees it.
 */
export async function announce(name: string, answer: string): Promise<AsyncDisposable | undefined> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // the caller disconnected
    socket.end(answer, () => socket.destroy()); // an open connection would block closing
  });
  server.unref();
  outliveAcceptErrors(server);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(`\0${name}`, resolve);
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined; // SAFE: only read
    throw error;
  }
  return {
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
      }),
  };
}

/**
 * Returns the answer of a name's holder, which is not trusted. Empty when there is no holder, it is ending, or it is
 * not podvm.
 */
export async function heldBy(name: string): Promise<string> {
  const socket = connect(`\0${name}`);
  socket.setTimeout(answerMs, () => socket.destroy());
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxAnswerBytes) socket.destroy();
  });
  return await text(socket).catch(() => '');
}
