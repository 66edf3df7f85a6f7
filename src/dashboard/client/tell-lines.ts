import { plainText } from './format.ts';

/** Lines that are kept; older ones are left out. */
export const maxLines = 10_000;
/** Characters of a line that are shown. */
const maxLineChars = 4096;

/** The browser's frames: what happens before it draws the next one. */
export interface Frames {
  request(act: () => void): number;
  cancel(frame: number): void;
}

/**
 * Tells the last lines of a text that comes in parts: at most once in a frame, and at its end. Errors: those of the
 * parts, after the lines before them were told.
 */
export async function tellLines(
  parts: AsyncIterable<string>,
  tell: (lines: readonly string[]) => void,
  frames: Frames,
): Promise<void> {
  let held = '';
  let lines: string[] = [];
  let frame: number | undefined;
  const tellNow = () => {
    frame = undefined;
    tell(held === '' ? [...lines] : [...lines, plainText(held)]);
  };
  try {
    for await (const text of parts) {
      const whole = (held + text).split('\n');
      held = (whole.pop() ?? '').slice(0, maxLineChars);
      for (const line of whole) lines.push(plainText(line.slice(0, maxLineChars)));
      if (lines.length > maxLines) lines = lines.slice(-maxLines);
      frame ??= frames.request(tellNow);
    }
  } finally {
    if (frame !== undefined) frames.cancel(frame);
    tellNow();
  }
}
