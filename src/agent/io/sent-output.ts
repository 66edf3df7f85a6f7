import { PodvmError } from '#base/errors.ts';

/**
 * What was sent of one output and is not with the host for good yet: at most a stream's window, since nothing is sent
 * without credit. A host that takes over from another asks for it again. Offsets are bytes since the process began.
 */
export class SentOutput {
  #pieces: Uint8Array[] = [];
  #acknowledged = 0;
  #sent = 0;

  /** Takes over the bytes. */
  push(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#sent += bytes.length;
  }

  /** The host has so many more for good; a host that grants more than it was sent gains nothing. */
  acknowledge(bytes: number): void {
    this.#drop(Math.min(this.#acknowledged + bytes, this.#sent));
  }

  /** Bytes that were read and sent nowhere. */
  skip(bytes: number): void {
    this.#sent += bytes;
    this.#drop(this.#sent);
  }

  /**
   * What was sent after `offset`, which acknowledges the rest; undefined: nothing is wanted again. Errors: `exhausted` if
   * some of it is not here any more; `invalid` if so much was never sent.
   */
  after(offset: number | undefined): Uint8Array[] {
    if (offset === undefined) {
      this.#drop(this.#sent);
      return [];
    }
    this.check(offset);
    this.#drop(offset);
    return [...this.#pieces];
  }

  /** Errors: as of `after`. */
  check(offset: number): void {
    if (offset > this.#sent) {
      throw new PodvmError('invalid', `Cannot send output from byte ${offset}: only ${this.#sent} were sent`);
    }
    if (offset < this.#acknowledged) {
      const gone = `the first ${this.#acknowledged} bytes are no longer kept`;
      throw new PodvmError('exhausted', `Cannot send output from byte ${offset}: ${gone}`);
    }
  }

  #drop(upTo: number): void {
    while (this.#acknowledged < upTo) {
      const [first] = this.#pieces;
      const wanted = upTo - this.#acknowledged;
      if (first === undefined || first.length <= wanted) {
        this.#pieces.shift();
        this.#acknowledged += first?.length ?? wanted;
      } else {
        this.#pieces[0] = first.subarray(wanted);
        this.#acknowledged = upTo;
      }
    }
  }
}
