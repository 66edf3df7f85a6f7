import { type CallError } from './api.ts';
import { asError } from './poll.ts';
import { type Frames, tellLines } from './tell-lines.ts';

export interface Following {
  readonly tell: (lines: readonly string[]) => void;
  /** The node does not answer. What it told before stays shown. */
  readonly onCut: (why: CallError) => void;
  readonly frames: Frames;
  /** Waits until the next try; rejects when nothing is to be read any more. */
  readonly pause: () => Promise<void>;
}

/**
 * Tells the last lines of a text until its end. When the node restarts, the text is read again: its pods live on. Errors:
 * those of `read`, unless the node does not answer.
 */
export async function followLines(read: () => AsyncIterable<string>, following: Following): Promise<void> {
  const { tell, onCut, frames, pause } = following;
  for (;;) {
    try {
      await tellLines(read(), (lines) => lines.length > 0 && tell(lines), frames);
      return;
    } catch (error) {
      const why = asError(error);
      if (why.kind !== 'unavailable') throw why;
      onCut(why);
    }
    await pause();
  }
}
