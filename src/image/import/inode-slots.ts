import { pageBytes } from './erofs-format.ts';

/** Blocks with room that are looked at for each inode. */
const maxOpen = 32;

interface Block {
  readonly at: number;
  used: number;
}

/**
 * Gives places to inodes with what follows them, so that none but those that are larger than a block reaches into the
 * next one. The first place is not 0, which programs take for a file that was removed.
 */
export class InodeSlots {
  readonly #slotBytes: number;
  /** Blocks with room. */
  readonly #open: Block[];
  /** Number of blocks so far. */
  blocks = 1;

  constructor(slotBytes: number) {
    this.#slotBytes = slotBytes;
    this.#open = [{ at: 0, used: slotBytes }];
  }

  /** Returns the position for so many bytes: in the block where the least room would be left, or in a new one. */
  take(bytes: number): number {
    const whole = Math.ceil(bytes / this.#slotBytes) * this.#slotBytes;
    let best: Block | undefined;
    for (const block of this.#open)
      if (block.used + whole <= pageBytes && block.used > (best?.used ?? -1)) best = block;
    best ??= this.#add(Math.ceil(whole / pageBytes));
    const at = best.at + best.used;
    best.used += whole;
    return at;
  }

  /** Puts nothing more into the blocks so far. */
  close(): void {
    this.#open.length = 0;
  }

  #add(blocks: number): Block {
    const block = { at: this.blocks * pageBytes, used: 0 };
    this.blocks += blocks;
    if (blocks > 1) return block; // no other inode comes into these
    this.#open.push(block);
    if (this.#open.length > maxOpen) this.#open.splice(fullest(this.#open), 1);
    return block;
  }
}

function fullest(blocks: readonly Block[]): number {
  let found = 0;
  for (const [at, { used }] of blocks.entries()) if (used > (blocks[found]?.used ?? 0)) found = at;
  return found;
}
