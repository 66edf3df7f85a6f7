import type { Readable } from 'node:stream';
import * as v from 'valibot';

/** Client-go's `TerminalSize`: columns and rows, unsigned 16-bit. */
const terminalSize = v.object({
  Width: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff)),
  Height: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff)),
});
export type TerminalSize = v.InferOutput<typeof terminalSize>;

/** Longest text that may precede a size, in bytes. */
const maxKeptBytes = 1024;

/**
 * Yields sizes from a stream of flat JSON objects with any separators, as Go's encoder writes them. Other content is
 * skipped: the terminal works without it.
 */
export async function* terminalSizes(stream: Readable): AsyncGenerator<TerminalSize> {
  let kept = '';
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    kept += chunk.toString('latin1');
    for (let end = kept.indexOf('}'); end >= 0; end = kept.indexOf('}')) {
      const size = parseSize(kept.slice(0, end + 1));
      kept = kept.slice(end + 1);
      if (size !== undefined) yield size;
    }
    if (kept.length > maxKeptBytes) kept = '';
  }
}

function parseSize(text: string): TerminalSize | undefined {
  const start = text.lastIndexOf('{');
  if (start < 0 || text.length - start > maxKeptBytes) return undefined;
  try {
    const { success, output } = v.safeParse(terminalSize, JSON.parse(text.slice(start)));
    return success && output.Width > 0 && output.Height > 0 ? output : undefined;
  } catch {
    return undefined;
  }
}
