import { PodvmError } from '#base/errors.ts';

/** Longest line of an answer, in characters. */
const maxLineChars = 1024 * 1024;

/** Yields the lines of an answer that is sent in parts. Errors: `exhausted`. */
export async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let held = '';
  for await (const chunk of chunks) {
    held += decoder.decode(chunk, { stream: true });
    if (held.length > maxLineChars)
      throw new PodvmError('exhausted', 'Cannot read the response of podvm: a line is too long');
    const parts = held.split('\n');
    held = parts.pop() ?? '';
    yield* parts.filter((part) => part !== '');
  }
}
