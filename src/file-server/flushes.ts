import { ready, type Descriptors } from '#engine/engine.ts';
import type { Served } from './served.ts';
import { errno } from './fuse.ts';

interface Flush {
  readonly fd: number;
  readonly isDataOnly: boolean;
  readonly answer: (result: number) => void;
}

/** Flushes to the host's disk, while other requests continue. */
export class Flushes {
  readonly #engine: Served & Descriptors;
  readonly #underWay = new Map<number, (result: number) => void>();
  readonly #waiting: Flush[] = [];
  #lastId = 0;

  constructor(engine: Served & Descriptors) {
    this.#engine = engine;
    engine.watch(engine.openFlushes(), ready.readable, () => this.#onFlushed());
  }

  /** Starts a flush. Undefined: `answer` gets the result later. The descriptor may be closed before that. */
  start(fd: number, isDataOnly: boolean, answer: (result: number) => void): number | undefined {
    const result = this.#start({ fd, isDataOnly, answer });
    if (result === 0) return undefined;
    if (result !== -errno.again) return result;
    if (this.#underWay.size === 0) return -errno.io; // no thread can start, and none will end to free its place
    this.#waiting.push({ fd: this.#engine.duplicate(fd), isDataOnly, answer });
    return undefined;
  }

  #start({ fd, isDataOnly, answer }: Flush): number {
    const id = ++this.#lastId;
    const result = this.#engine.startFlush(fd, isDataOnly, id);
    if (result === 0) this.#underWay.set(id, answer);
    return result;
  }

  #onFlushed(): void {
    const { id, error } = this.#engine.flushed();
    const answer = this.#underWay.get(id);
    this.#underWay.delete(id);
    const next = this.#waiting.shift();
    if (next !== undefined) {
      const result = this.#start(next);
      this.#engine.close(next.fd);
      if (result !== 0) next.answer(result);
    }
    answer?.(-error);
  }
}
