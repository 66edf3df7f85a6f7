import { PodvmError } from '#base/errors.ts';
import type { ImageLimits } from '../limits.ts';

/** What each extended attribute takes of our memory beside its bytes. */
const xattrBytes = 64;

/** What is left of what one image may ask for, whatever its single files and layers keep to. */
export class ImageBudget {
  readonly #limits: ImageLimits;
  #bytes: number;
  #metadataBytes: number;
  #steps: number;

  constructor(limits: ImageLimits) {
    this.#limits = limits;
    this.#bytes = limits.maxImageBytes;
    this.#metadataBytes = limits.maxMetadataBytes;
    this.#steps = limits.maxPathSteps;
  }

  /** Uncompressed bytes. Errors: `exhausted`. */
  spendBytes(bytes: number): void {
    this.#bytes -= bytes;
    if (this.#bytes < 0) throw tooMuch(`uncompressed it has more than ${this.#limits.maxImageBytes} bytes`);
  }

  /** Names, targets of links and extended attributes. Errors: `exhausted`. */
  spendMetadata(bytes: number): void {
    this.#metadataBytes -= bytes;
    if (this.#metadataBytes >= 0) return;
    throw tooMuch(`its names and attributes have more than ${this.#limits.maxMetadataBytes} bytes together`);
  }

  /** Errors: `exhausted`. */
  spendXattrs(xattrs: ReadonlyMap<string, string>): void {
    for (const [name, value] of xattrs) this.spendMetadata(name.length + value.length + xattrBytes);
  }

  /** Parts of paths that are looked up, and files that whiteouts go over. Errors: `exhausted`. */
  spendSteps(steps: number): void {
    this.#steps -= steps;
    if (this.#steps >= 0) return;
    throw tooMuch(`its paths and links take more than ${this.#limits.maxPathSteps} steps to follow`);
  }
}

function tooMuch(reason: string): PodvmError {
  return new PodvmError('exhausted', `Cannot flatten the image: ${reason}`, { fix: 'Use a smaller image.' });
}
