import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { PodvmError } from '#base/errors.ts';

/** Descriptors that are kept free for what ends pods. */
const reservedCount = 64;
/** With as many free, none is counted or tried. */
const ampleCount = 1024;
const lookEveryMs = 1000;

/** How many descriptors this process has, and may have. */
export interface DescriptorCounts {
  readonly open: number;
  readonly limit: number;
}

/**
 * The descriptor table of this process. It holds some as a reserve, which it gives free when the others are used up: until
 * there are enough again, what would take descriptors for long (pods, connections) is refused, so that the reserve is left
 * to what takes them briefly, to end pods or to answer.
 */
export class Descriptors {
  readonly #reserve: number[] = [];
  #isShort = false;
  /** At the last look. */
  #isAmple = false;
  #onShort: (isShort: boolean, counts: DescriptorCounts | undefined) => void = () => {};

  /**
   * Takes the reserve and looks at the table once in a while, until disposed of. `onShort` is told when the reserve is given
   * free and when it is taken again.
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

  /** The reserve is in use. */
  get isShort(): boolean {
    return this.#isShort;
  }

  /** Whether so many can be taken for long, beside the reserve. */
  hasRoomFor(count: number): boolean {
    if (this.#isAmple) return true;
    this.#look();
    const counts = countsOf();
    return !this.#isShort && counts !== undefined && counts.limit - counts.open >= count;
  }

  /** Gives the reserve free if fewer than `count` descriptors are. Returns whether there are so many then. */
  makeRoom(count = reservedCount / 2): boolean {
    if (this.#isAmple || canOpen(count)) return true;
    if (this.#reserve.length > 0) this.#giveFree();
    return canOpen(count);
  }

  /** A descriptor could not be had. */
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

/** A process has one table. */
export const descriptors = new Descriptors();

/** The error of what is refused while they are short. */
export function shortOfDescriptors(failing: string): PodvmError {
  return new PodvmError('exhausted', `${failing}: podvm is short of file descriptors`, {
    fix: 'Raise its limit (`LimitNOFILE` of its service, `ulimit -n`), or stop some pods.',
  });
}

function open(): number | undefined {
  try {
    return openSync('/dev/null', 'r');
  } catch {
    return undefined; // EMFILE, ENFILE
  }
}

/** Only trying tells for sure: there may be gaps below the highest. */
function canOpen(count: number): boolean {
  const opened: number[] = [];
  for (let fd = open(); fd !== undefined && opened.push(fd) < count;) fd = open();
  for (const fd of opened) closeSync(fd);
  return opened.length === count;
}

/** Whether even the size of the table (`FDSize`, which only grows) is far below the limit: one read, whatever is open. */
function isAmple(): boolean {
  try {
    const size = Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? Infinity);
    return limitOf() - size >= ampleCount;
  } catch {
    return false; // there is none to read it with
  }
}

function countsOf(): DescriptorCounts | undefined {
  try {
    return { open: readdirSync('/proc/self/fd').length - 1, limit: limitOf() };
  } catch {
    return undefined;
  }
}

/** The soft limit, which another process may change. */
function limitOf(): number {
  const text = readFileSync('/proc/self/limits', 'latin1');
  return Number(/^Max open files\s+(\d+)/m.exec(text)?.[1] ?? 0);
}
