import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { PodvmError } from '#base/errors.ts';
import { fixOfShortDescriptors } from '../advice.ts';

/** Descriptors in reserve for calls that end pods. */
const reservedCount = 64;
/** With this many free descriptors, the table is not checked in detail. */
const ampleCount = 1024;
const lookEveryMs = 1000;

/** Number of descriptors that this process has open, and its limit. */
export interface DescriptorCounts {
  readonly open: number;
  readonly limit: number;
}

/**
 * The descriptor table of this process. It holds a reserve, which it releases when all other descriptors are used up.
 * Until enough are free again, pods and connections, which hold descriptors for long, are refused, so that the reserve
 * is left for short uses such as ending pods and answering calls.
 */
export class Descriptors {
  readonly #reserve: number[] = [];
  #isShort = false;
  /** Result of the last check. */
  #isAmple = false;
  #onShort: (isShort: boolean, counts: DescriptorCounts | undefined) => void = () => {};

  /**
   * Takes the reserve and checks the table at intervals, until disposed. `onShort` is called when the reserve is
   * released and when it is taken again.
   */
  hold(onShort: (isShort: boolean, counts: DescriptorCounts | undefined) => void): Disposable {
    this.#onShort = onShort;
    this.#fill();
    this.makeRoom();
    const timer = setInterval(() => this.#look(), lookEveryMs).unref();
    return {
      [Symbol.dispose]: () => {
        clearInterval(timer);
        this.#free();
        this.#isShort = false;
        this.#isAmple = false;
        this.#onShort = () => {};
      },
    };
  }

  /** Whether the reserve is in use. */
  get isShort(): boolean {
    return this.#isShort;
  }

  /** Whether `count` descriptors can be taken for long without using the reserve. */
  hasRoomFor(count: number): boolean {
    if (this.#isAmple) return true;
    this.#look();
    const counts = countsOf();
    return !this.#isShort && counts !== undefined && counts.limit - counts.open >= count;
  }

  /** Releases the reserve if fewer than `count` descriptors are free. Returns whether that many are free afterwards. */
  makeRoom(count = reservedCount / 2): boolean {
    if (this.#isAmple || canOpen(count)) return true;
    if (this.#reserve.length > 0) this.#giveFree();
    return canOpen(count);
  }

  /** Call it when opening a descriptor has failed. */
  ranOut(): void {
    this.#isAmple = false;
    this.makeRoom();
  }

  #look(): void {
    this.#isAmple = isAmple();
    if (!this.#isShort) {
      this.makeRoom();
      return;
    }
    const counts = countsOf();
    if (counts === undefined || counts.limit - counts.open < 2 * reservedCount) return;
    this.#fill();
    this.#isShort = false;
    this.#onShort(false, counts);
  }

  #giveFree(): void {
    this.#free();
    if (this.#isShort) return;
    this.#isShort = true;
    this.#onShort(true, countsOf());
  }

  #free(): void {
    for (const fd of this.#reserve.splice(0)) closeSync(fd);
  }

  #fill(): void {
    while (this.#reserve.length < reservedCount) {
      const fd = open();
      if (fd === undefined) return;
      this.#reserve.push(fd);
    }
  }
}

/** The table of this process. */
export const descriptors = new Descriptors();

/** Error for a request that is refused while descriptors are short. */
export function shortOfDescriptors(failing: string): PodvmError {
  return new PodvmError('exhausted', `${failing}: podvm is short of file descriptors`, {
    fix: fixOfShortDescriptors,
  });
}

function open(): number | undefined {
  try {
    return openSync('/dev/null', 'r');
  } catch {
    return undefined; // EMFILE, ENFILE
  }
}

/** Tries to open them, because counting misses gaps below the highest descriptor. */
function canOpen(count: number): boolean {
  const opened: number[] = [];
  for (let fd = open(); fd !== undefined && opened.push(fd) < count;) fd = open();
  for (const fd of opened) closeSync(fd);
  return opened.length === count;
}

/**
 * Whether the size of the table (`FDSize`, which only grows) is far below the limit. One read, however many are open.
 */
function isAmple(): boolean {
  try {
    const size = Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? Infinity);
    return limitOf() - size >= ampleCount;
  } catch {
    return false; // no descriptor is left for reading
  }
}

/** Returns undefined if no descriptor is left for reading the counts. */
export function countsOf(): DescriptorCounts | undefined {
  try {
    return { open: readdirSync('/proc/self/fd').length - 1, limit: limitOf() };
  } catch {
    return undefined;
  }
}

/** The soft limit, which another process may change at any time. */
function limitOf(): number {
  const text = readFileSync('/proc/self/limits', 'latin1');
  return Number(/^Max open files\s+(\d+)/m.exec(text)?.[1] ?? 0);
}
