import * as v from 'valibot';
import { requestKinds } from '#base/file-requests.ts';
import { sumOf } from '#base/histogram.ts';
import type { FileServerFigures } from '#storage/request-figures.ts';

type Requests = FileServerFigures['requests'];

const count = v.pipe(v.number(), v.finite(), v.minValue(0));
const reading = v.object({
  buckets: v.pipe(v.array(v.object({ upTo: count, count })), v.readonly()),
  count,
  sum: count,
});

/** Requests in the record of a sandbox. */
export const requestsSchema = v.object({
  ...{ look: reading, read: reading, write: reading, change: reading, flush: reading, other: reading },
});

/**
 * Keeps what the file servers of a pod had counted when they ended, so that the counters of the pod never decrease: a
 * scraper would take that for a restart, and count all requests of the other servers again.
 */
export class ServedRequests {
  readonly #last = new Map<number, FileServerFigures>();
  readonly #onEnded: (ended: Requests) => void;
  #ended: Requests | undefined;

  /** `before`: what servers had counted that ended under an earlier process. `onEnded`: told of all when one more ends. */
  constructor(before?: Requests, onEnded: (ended: Requests) => void = () => {}) {
    this.#ended = before;
    this.#onEnded = onEnded;
  }

  /**
   * `read`: figures by pid. `running`: pids of the servers now. Returns the requests of servers that `read` lacks: those
   * that have ended, and those that could not be read.
   */
  take(read: ReadonlyMap<number, FileServerFigures>, running: readonly number[]): Requests | undefined {
    for (const [pid, figures] of read) if (running.includes(pid) || this.#last.has(pid)) this.#last.set(pid, figures); // else a late reading of one that ended
    for (const [pid, { requests }] of this.#last) {
      if (running.includes(pid)) continue;
      this.#last.delete(pid);
      this.#ended = this.#ended === undefined ? requests : requestsOf([this.#ended, requests]);
      this.#onEnded(this.#ended);
    }
    const unread = [...this.#last].filter(([pid]) => !read.has(pid)).map(([, { requests }]) => requests);
    const others = this.#ended === undefined ? unread : [this.#ended, ...unread];
    return others.length === 0 ? undefined : requestsOf(others);
  }
}

/** Sums the requests of servers by kind; at least one. */
export function requestsOf(all: readonly Requests[]): Requests {
  const sums = requestKinds.map((kind) => [kind, sumOf(all.map((requests) => requests[kind]))]);
  return Object.fromEntries(sums) as Requests; // SAFE: made of all kinds
}
