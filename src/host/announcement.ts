import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';

/** How long the holder may take to say who it is, in `ms`. */
const answerMs = 2000;
const maxAnswerBytes = 4096;

/**
 * A name that one process of a network namespace has at a time: an abstract unix socket (unix(7)). The kernel takes it
 * back when its holder dies, however that happens, and nothing is left to go stale. Callers are told `answer`. Undefined
 * when another process has the name. Disposing gives it back.
 */
export async function announce(name: string, answer: string): Promise<AsyncDisposable | undefined> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // the caller has gone
    socket.end(answer, () => socket.destroy()); // one that stays would keep us from closing
  });
  server.unref();
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

/** What the holder of a name says. Empty: there is none, it ends just now, or it is not ours. Never to be trusted. */
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
