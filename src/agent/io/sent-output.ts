import { PodvmError } from '#base/errors.ts';

/**
 * Output that was sent and that the host has not stored yet: at most a stream's window, since nothing is sent without
 * credit. A host that takes over from another requests it again. Offsets are bytes since the process' start.
 */
export class SentOutput {
  #pieces: Uint8Array[] = [];
  #acknowledged = 0;
  #sent = 0;

  /** Takes ownership of the bytes. */
  push(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#sent += bytes.length;
  }

  /**
   * Drops the next `bytes`, which the host has stored. A host that acknowledges more than it was sent gains nothing.
   */
  acknowledge(bytes: number): void {
    this.#drop(Math.min(this.#acknowledged + bytes, this.#sent));
  }

  /** Counts bytes that were read and not sent. */
  skip(bytes: number): void {
    this.#sent += bytes;
    this.#drop(this.#sent);
  }

  /**
   * Output sent after `offset`, which acknowledges the rest; undefined: nothing is requested again. In one piece, since a
   * process may have written thousands of lines, one by one. Errors: `exhausted` if some of it is no longer kept;
   * `invalid` if it was never sent.
   */
  after(offset: number | undefined): Uint8Array {
    if (offset !== undefined) this.check(offset);
    this.#drop(offset ?? this.#sent);
    const whole = new Uint8Array(this.#sent - this.#acknowledged);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [whole];
    return whole;
  }

  /** Errors: those of `after`. */
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
