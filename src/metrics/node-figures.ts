import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { countsOf } from '#host/process/descriptors.ts';
import { memoryOf } from '#host/meminfo.ts';

/** Figures of the node from the kernel, and of this process. */
export interface NodeFigures {
  readonly memoryBytes: number | undefined;
  readonly availableBytes: number | undefined;
  /** Empty on a kernel without PSI (Documentation/accounting/psi.rst). */
  readonly pressure: readonly { readonly resource: string; readonly waiting: number; readonly stalled: number }[];
  readonly cpuSeconds: number;
  readonly startedSeconds: number;
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  readonly heapBytes: number;
  readonly descriptors: number | undefined;
  readonly maxDescriptors: number | undefined;
  readonly loopDelay: LoopDelay;
}

interface LoopDelay {
  readonly meanSeconds: number;
  readonly p99Seconds: number;
  readonly maxSeconds: number;
}

const pressureResources = ['cpu', 'memory', 'io'] as const;
/**
 * Interval of the monitor's own timer, in `ms`, which does not count as delay. Each wakes the process, some 25 us: at 20 ms, that
 * was a tenth of all that scrapes may cost.
 */
const resolutionMs = 100;

/** Time without a read after which the event loop is not monitored, in `ms`; longer than any scraper's interval. */
const idleMs = 120_000;

/** Measures the node. The event loop is monitored while there is a reader. Disposing ends that. */
export class NodeMeter implements Disposable {
  readonly #loop: ReturnType<typeof monitorEventLoopDelay>;
  #idle: NodeJS.Timeout | undefined;

  constructor(loop = monitorEventLoopDelay({ resolution: resolutionMs })) {
    this.#loop = loop;
  }

  /** Reads /proc synchronously: that uses no disk, and takes less time than a turn of the event loop on a busy node. */
  read(): NodeFigures {
    this.#loop.enable(); // wakes the process ten times a second, so it begins with a read
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      this.#loop.disable();
      this.#loop.reset();
    }, idleMs).unref();
    const memory = textOf('/proc/meminfo');
    const open = countsOf();
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, heapTotal } = process.memoryUsage();
    return {
      memoryBytes: memoryOf(memory, 'MemTotal'),
      availableBytes: memoryOf(memory, 'MemAvailable'),
      pressure: pressureResources.flatMap((resource) => pressureOf(resource, textOf(`/proc/pressure/${resource}`))),
      cpuSeconds: (user + system) / 1e6,
      startedSeconds: performance.timeOrigin / 1000,
      residentBytes: rss,
      heapUsedBytes: heapUsed,
      heapBytes: heapTotal,
      descriptors: open?.open,
      maxDescriptors: open?.limit,
      loopDelay: this.#loopDelay(),
    };
  }

  #loopDelay(): LoopDelay {
    const loop = this.#loop;
    const seconds = (ns: number) => (loop.count === 0 ? 0 : Math.max(0, ns / 1e9 - resolutionMs / 1000));
    const delay = {
      meanSeconds: seconds(loop.mean),
      p99Seconds: seconds(loop.percentile(99)),
      maxSeconds: seconds(loop.max),
    };
    loop.reset();
    return delay;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#idle);
    this.#loop.disable();
  }
}

/** Empty where the kernel has no such file. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

const numberOf = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text));

/** Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, and the same with `full`. */
function pressureOf(resource: string, text: string): NodeFigures['pressure'] {
  const secondsOf = (kind: string) => numberOf(new RegExp(`^${kind} .*total=(\\d+)$`, 'm').exec(text)?.[1]);
  const some = secondsOf('some');
  if (some === undefined) return [];
  return [{ resource, waiting: some / 1e6, stalled: (secondsOf('full') ?? 0) / 1e6 }];
}
