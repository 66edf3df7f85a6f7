import { PodvmError } from '#base/errors.ts';
import type { ImageLimits } from '../limits.ts';

/** Memory that each extended attribute takes here besides its bytes. */
const xattrBytes = 64;

/** Remainder of an image's total limits, which apply besides the limits on single files and layers. */
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

  /** Counts uncompressed bytes. Errors: `exhausted`. */
  spendBytes(bytes: number): void {
    this.#bytes -= bytes;
    if (this.#bytes < 0) throw tooMuch(`uncompressed it has more than ${this.#limits.maxImageBytes} bytes`);
  }

  /** Counts names, targets of links and extended attributes. Errors: `exhausted`. */
  spendMetadata(bytes: number): void {
    this.#metadataBytes -= bytes;
    if (this.#metadataBytes >= 0) return;
    throw tooMuch(`its names and attributes have more than ${this.#limits.maxMetadataBytes} bytes together`);
  }

  /** Counts extended attributes. Errors: `exhausted`. */
  spendXattrs(xattrs: ReadonlyMap<string, string>): void {
    for (const [name, value] of xattrs) this.spendMetadata(name.length + value.length + xattrBytes);
  }

  /** Counts path components that are looked up, and files that whiteouts visit. Errors: `exhausted`. */
  spendSteps(steps: number): void {
    this.#steps -= steps;
    if (this.#steps >= 0) return;
    throw tooMuch(`its paths and links take more than ${this.#limits.maxPathSteps} steps to follow`);
  }
}

function tooMuch(reason: string): PodvmError {
  return new PodvmError('exhausted', `Cannot flatten the image: ${reason}`, { fix: 'Use a smaller image.' });
}
