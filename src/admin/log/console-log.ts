import { watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { once } from 'node:events';
import { PodvmError } from '#base/errors.ts';

const chunkBytes = 64 * 1024;

/** Yields the guest's serial console from its file, escaped for a terminal. Follows until `ended` or an abort. */
export async function* consoleLog(
  path: string,
  follow: boolean,
  ended: Promise<unknown>,
  signal: AbortSignal,
): AsyncGenerator<string> {
  await using file = await open(path, 'r').catch((cause: unknown) => {
    throw new PodvmError('failedPrecondition', 'Cannot show the console: it is switched off in the configuration', {
      cause,
      fix: 'Set `console` to `on` in the configuration and start the pod again.',
    });
  });
  const stop = new AbortController();
  const end = () => stop.abort();
  ended.then(end, end);
  const either = AbortSignal.any([signal, stop.signal]);
  const watcher = watch(path).on('error', end);
  try {
    let at = 0;
    while (true) {
      const isOver = either.aborted || !follow;
      for (let text = await readAt(file, at); text.length > 0; text = await readAt(file, at)) {
        at += text.length;
        yield harmless(text.toString('latin1'));
      }
      if (isOver) return;
      await once(watcher, 'change', { signal: either }).catch(() => undefined); // the loop above checks the abort
    }
  } finally {
    watcher.close();
  }
}

async function readAt(file: FileHandle, at: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(chunkBytes), 0, chunkBytes, at);
  return buffer.subarray(0, bytesRead);
}

/** Passes only line feeds and tabs of the control characters: others could move the cursor or send input. */
export function harmless(text: string): string {
  return text.replaceAll(/[^\n\t\u0020-\u007e]/g, (char) => (char === '\r' ? '' : '.'));
}
